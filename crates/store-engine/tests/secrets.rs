//! Tests of secrets in a file.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use larder_store_api::{Kind, Result, Secret, SecretName, Secrets};
use larder_store_engine::{FileSecrets, Unlock};
use larder_store_testkit::suite::{check_secrets, check_secrets_kept};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_file_keeps_the_contract_and_what_was_put() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("a/secrets"), dir.path().join("b/key"));
    let secrets = FileSecrets::open(&path, Unlock::key_file(&key)?).await?;
    check_secrets(&secrets).await;
    let error = FileSecrets::open(&path, Unlock::key_file(&key)?)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    drop(secrets);
    check_secrets_kept(&FileSecrets::open(&path, Unlock::key_file(&key)?).await?).await;

    assert_eq!((mode(&path), mode(&key)), (0o600, 0o600));
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(5).any(|part| part == b"still"));
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    Ok(())
}

#[tokio::test]
async fn a_password_opens_what_it_closed() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets");
    let password = |text: &str| Unlock::Password(text.to_owned().into());
    let secrets = FileSecrets::open(&path, password("correct horse")).await?;
    check_secrets(&secrets).await;
    drop(secrets);
    let before = fs::read(&path).unwrap();
    let error = FileSecrets::open(&path, password("wrong horse"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let text = error.to_string();
    assert!(text.contains("the key or the password is wrong"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
    check_secrets_kept(&FileSecrets::open(&path, password("correct horse")).await?).await;
    Ok(())
}

#[tokio::test]
async fn what_others_can_read_is_refused() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("secrets"), dir.path().join("key"));
    let secrets = FileSecrets::open(&path, Unlock::key_file(&key)?).await?;
    secrets
        .put(SecretName::new("a")?, Secret::new(*b"b")?)
        .await?;
    drop(secrets);
    for open_to_all in [&path, &key] {
        fs::set_permissions(open_to_all, fs::Permissions::from_mode(0o644)).unwrap();
        let error = match Unlock::key_file(&key) {
            Ok(unlock) => FileSecrets::open(&path, unlock).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        assert!(format!("{error:?}").contains("chmod 600"), "{error:?}");
        fs::set_permissions(open_to_all, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Ok(())
}

#[tokio::test]
async fn a_write_that_fails_changes_nothing() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("a/secrets"), dir.path().join("key"));
    let secrets = FileSecrets::open(&path, Unlock::key_file(&key)?).await?;
    let name = SecretName::new("a")?;
    secrets.put(name.clone(), Secret::new(*b"old")?).await?;
    // There is a folder in the place of the new file, so that writing fails for every user.
    let new = dir.path().join("a/secrets.new");
    fs::create_dir(&new).unwrap();
    assert!(
        secrets
            .put(name.clone(), Secret::new(*b"new")?)
            .await
            .is_err()
    );
    assert_eq!(secrets.get(name.clone()).await?.unwrap().expose(), b"old");
    fs::remove_dir(&new).unwrap();
    secrets.put(name.clone(), Secret::new(*b"new")?).await?;
    assert_eq!(secrets.get(name).await?.unwrap().expose(), b"new");
    Ok(())
}
