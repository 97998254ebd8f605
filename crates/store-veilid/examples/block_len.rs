//! Measures how the length of a block affects Veilid's tables; `BLOCK_LEN` was chosen by it.
//!
//! `cargo run --release -p larder-store-veilid --example block_len` prints the median of five rounds
//! for each length: writing 128 MiB in transactions of 1 MiB, reading it in order, reading random
//! groups of 16 KiB (which loads a whole block each), and the bytes on disk per stored byte.

#![allow(clippy::print_stdout, reason = "it prints its measurements")]

use std::{path::Path, time::Instant};

use larder_veilid_node::{Bootstrap, Node, NodeConfig, Protection, veilid_core::TableDB};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TOTAL: usize = 128 << 20;
const TRANSACTION: usize = 1 << 20;
const READS: usize = 2000;
const ROUNDS: usize = 5;
const KIB: [usize; 6] = [16, 32, 64, 128, 256, 512];

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut figures = vec![[const { Vec::<f64>::new() }; 4]; KIB.len()];
    for round in 0..ROUNDS {
        for (kib, figures) in KIB.iter().zip(&mut figures) {
            let dir = tempfile::tempdir()?;
            let measured = measure(dir.path(), kib << 10, round).await?;
            figures
                .iter_mut()
                .zip(measured)
                .for_each(|(all, one)| all.push(one));
        }
    }
    println!("| block | write MB/s | read MB/s | random 16 KiB /s | disk |\n|---|---|---|---|---|");
    for (kib, figures) in KIB.iter().zip(&mut figures) {
        let [write, read, random, disk] = figures.each_mut().map(|all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        });
        println!("| {kib} KiB | {write:.0} | {read:.0} | {random:.0} | {disk:.3} × |");
    }
    Ok(())
}

async fn measure(dir: &Path, len: usize, round: usize) -> Result<[f64; 4], Failure> {
    let mut config = NodeConfig::new(dir, Protection::InsecureFile);
    config.namespace = format!("b{len}x{round}");
    config.bootstrap = Bootstrap::Nobody;
    let node = Node::start(config).await?;
    let table = node.api().open_table_db("blocks", 1).await?;
    let mut random = ChaCha8Rng::seed_from_u64(round as u64);
    let mut block = vec![0; len];
    random.fill_bytes(&mut block);
    let megabytes = TOTAL as f64 / 1e6;

    let start = Instant::now();
    let per_transaction = TRANSACTION / len;
    for first in (0..TOTAL / len).step_by(per_transaction) {
        let transaction = table.transact();
        for index in first..first + per_transaction {
            block[..8].copy_from_slice(&(index as u64).to_be_bytes());
            transaction
                .store(0, key(index), block.clone().into())
                .await?;
        }
        transaction.commit().await?;
    }
    let write = megabytes / start.elapsed().as_secs_f64();

    let start = Instant::now();
    for index in 0..TOTAL / len {
        load(&table, index, len).await?;
    }
    let read = megabytes / start.elapsed().as_secs_f64();

    let start = Instant::now();
    for _ in 0..READS {
        load(&table, random.random_range(0..TOTAL / len), len).await?;
    }
    let reads = READS as f64 / start.elapsed().as_secs_f64();
    drop(table);
    node.shutdown().await;

    let mut disk = 0;
    for file in std::fs::read_dir(dir.join("table_store"))? {
        disk = disk.max(file?.metadata()?.len());
    }
    Ok([write, read, reads, disk as f64 / TOTAL as f64])
}

fn key(index: usize) -> larder_store_api::Bytes {
    [[7; 16].as_slice(), &(index as u64).to_be_bytes()]
        .concat()
        .into()
}

async fn load(table: &TableDB, index: usize, len: usize) -> Result<(), Failure> {
    let found = table.load(0, key(index)).await?.ok_or("it is missing")?;
    assert_eq!(found.len(), len);
    Ok(())
}
