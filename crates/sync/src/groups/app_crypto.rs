//! Values that an app seals for its group, and keeps or sends in its own way.

use bytes::Bytes;
use larder_store_api::Result;

use super::Group;
use crate::seal::app::{open_app, seal_app};

/// The purpose of sealed data, such as `chat/v1`: data that were sealed for one purpose do not open for another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppContext<'a>(&'a [u8]);

impl<'a> AppContext<'a> {
    /// A context with this name.
    pub fn new(name: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(name.as_ref())
    }
}

impl Group {
    /// Seals small data of the app's own, at most [`MAX_APP_LEN`](crate::seal::app::MAX_APP_LEN) bytes,
    /// so that only members who may read the group can [`decrypt`](Self::decrypt) them, and only in the same
    /// context. The result does not say who sealed them, nor when.
    ///
    /// ```
    /// # use larder_sync::groups::{AppContext, Group};
    /// # async fn example(group: &Group) -> larder_store_api::Result<()> {
    /// let sealed = group.encrypt("see you at the lake", AppContext::new("chat/v1")).await?;
    /// assert_eq!(group.decrypt(&sealed, AppContext::new("chat/v1"))?, "see you at the lake");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::Denied`](larder_store_api::Kind::Denied) to a replica,
    /// [`Kind::TooLarge`](larder_store_api::Kind::TooLarge) for more,
    /// [`Kind::Unavailable`](larder_store_api::Kind::Unavailable) if somebody was removed and this device may make no new
    /// key.
    pub async fn encrypt(&self, plain: impl AsRef<[u8]>, context: AppContext<'_>) -> Result<Bytes> {
        let keys = self.sealing("sync.group.encrypt").await?;
        seal_app(keys.read()?, self.id(), context.0, plain.as_ref())
    }

    /// Opens what [`encrypt`](Self::encrypt) has sealed.
    ///
    /// # Errors
    /// [`Kind::Denied`](larder_store_api::Kind::Denied) to a replica, and for an epoch whose key is not held;
    /// [`Kind::Corrupt`](larder_store_api::Kind::Corrupt) if the data are another group's, were sealed for
    /// another context, or changed; [`Kind::Invalid`](larder_store_api::Kind::Invalid) and
    /// [`Kind::TooLarge`](larder_store_api::Kind::TooLarge) if they cannot be sealed data.
    pub fn decrypt(&self, sealed: impl AsRef<[u8]>, context: AppContext<'_>) -> Result<Bytes> {
        self.check_reads("sync.group.decrypt")?;
        let sealed = sealed.as_ref();
        self.keyring()
            .open_read(sealed, |key| open_app(key, self.id(), context.0, sealed))
    }
}
