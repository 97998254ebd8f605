//! Checks for every implementation of [`Secrets`].

use larder_store_api::{MAX_SECRET_LEN, Secret, SecretName, Secrets};

fn name(name: &str) -> SecretName {
    SecretName::new(name).expect("a name within the limits")
}

fn secret(bytes: impl Into<Box<[u8]>>) -> Secret {
    Secret::new(bytes).expect("a secret within the limits")
}

async fn get(secrets: &dyn Secrets, key: &str) -> Option<Vec<u8>> {
    let found = secrets.get(name(key)).await.expect("a read");
    found.map(|secret| secret.expose().to_vec())
}

/// Checks the contract of [`Secrets`] on a keeper without secrets, and leaves one secret in it, with
/// the name `kept` and the value `still here`. Panics if something is wrong.
pub async fn check_secrets(secrets: &dyn Secrets) {
    assert_eq!(secrets.list().await.expect("a list"), []);
    assert_eq!(get(secrets, "absent").await, None);
    secrets
        .delete(name("absent"))
        .await
        .expect("deleting an absent secret is not an error");

    let longest: Vec<u8> = (0..MAX_SECRET_LEN).map(|n| n as u8).collect();
    let of_many_kinds: [(&str, &[u8]); 4] = [
        ("z", b"last"),
        ("empty", b""),
        ("group/0f.key_1-a", &longest),
        ("kept", b"first"),
    ];
    for (key, bytes) in of_many_kinds {
        secrets.put(name(key), secret(bytes)).await.expect("a put");
    }
    for (key, bytes) in of_many_kinds {
        assert_eq!(get(secrets, key).await.as_deref(), Some(bytes), "{key}");
    }
    let sorted = ["empty", "group/0f.key_1-a", "kept", "z"].map(name);
    assert_eq!(secrets.list().await.expect("a list"), sorted);

    secrets
        .put(name("kept"), secret(*b"still here"))
        .await
        .expect("another in its place");
    for gone in ["z", "empty", "group/0f.key_1-a"] {
        secrets.delete(name(gone)).await.expect("a delete");
        assert_eq!(get(secrets, gone).await, None);
    }
    check_secrets_kept(secrets).await;
}

/// Checks that the secret of [`check_secrets`] is there, for example after reopening the keeper.
pub async fn check_secrets_kept(secrets: &dyn Secrets) {
    assert_eq!(
        get(secrets, "kept").await.as_deref(),
        Some(&b"still here"[..])
    );
    assert_eq!(secrets.list().await.expect("a list"), [name("kept")]);
}
