//! Tests of secrets in a file.

use larder_store_api::{Secret, SecretKey, SecretName, Secrets};
use larder_store_engine::{FileSecrets, Unlock};
use larder_store_testkit::cancel;

fn secret(byte: u8) -> Secret {
    Secret::new(vec![byte; 32]).unwrap()
}

/// Whatever is dropped, the secret that is put last is there, in the file too.
#[tokio::test]
async fn what_is_put_later_stays() {
    for round in 0..10 {
        cancel::at_every_await(async |mut cut| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("secrets");
            let key = || Unlock::Key(SecretKey::from_bytes([1; 32]));
            let secrets = FileSecrets::open(&path, key()).await.unwrap();
            let name = SecretName::new("name").unwrap();
            secrets.put(name.clone(), secret(1)).await.unwrap();
            match round % 2 {
                0 => drop(cut.call(secrets.put(name.clone(), secret(2))).await),
                _ => drop(cut.call(secrets.delete(name.clone())).await),
            }
            let expected = secret(3);
            secrets.put(name.clone(), secret(3)).await.unwrap();
            std::thread::sleep(std::time::Duration::from_millis(round));
            drop(secrets);
            // A dropped change may hold the file for a moment.
            let secrets = loop {
                match FileSecrets::open(&path, key()).await {
                    Ok(secrets) => break secrets,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let found = secrets.get(name).await.unwrap().unwrap();
            assert_eq!(found.expose(), expected.expose());
            cut
        })
        .await;
    }
}
