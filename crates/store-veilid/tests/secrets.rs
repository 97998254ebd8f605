//! Tests of secrets in a node's protected store.

mod support;

use larder_store_api::{Kind, Result, Secret, SecretName, Secrets};
use larder_store_testkit::suite::{check_secrets, check_secrets_kept};
use larder_store_veilid::VeilidSecrets;
use support::{name, node};

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_and_what_was_put() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let namespace = name();
    let first = node(dir.path(), &namespace).await?;
    check_secrets(&VeilidSecrets::new(first.clone())).await;
    // The app's own secrets are not listed, and not touched.
    let own = first.api().save_user_secret("mine".to_owned(), vec![1]);
    own.await.expect("a secret of the app");
    check_secrets_kept(&VeilidSecrets::new(first.clone())).await;
    first.shutdown().await;
    let error = VeilidSecrets::new(first).list().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);

    let second = node(dir.path(), &namespace).await?;
    check_secrets_kept(&VeilidSecrets::new(second.clone())).await;
    second.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_each_has_its_own() -> Result<()> {
    let dirs = [0, 1].map(|_| tempfile::tempdir().expect("a folder"));
    let one = node(dirs[0].path(), &name()).await?;
    let two = node(dirs[1].path(), &name()).await?;
    let key = SecretName::new("key")?;
    let (first, second) = (
        VeilidSecrets::new(one.clone()),
        VeilidSecrets::new(two.clone()),
    );
    first.put(key.clone(), Secret::new(*b"one")?).await?;
    assert!(second.get(key).await?.is_none());
    one.shutdown().await;
    two.shutdown().await;
    Ok(())
}
