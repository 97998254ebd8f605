//! Values that an app seals for its group, and keeps or sends in its own way.

use bytes::Bytes;
use larder_store_api::Result;

use super::Group;
use crate::seal::app::{open_app, seal_app};

impl Group {
    /// Seals small data of the app's own, at most [`MAX_APP_LEN`](crate::seal::app::MAX_APP_LEN) bytes,
    /// so that only who may read the group can [`decrypt`](Self::decrypt) them, and only with the same
    /// `context`: what they are for, or empty. It is not told who sealed them, nor when.
    ///
    /// # Errors
    /// [`Kind::Denied`](larder_store_api::Kind::Denied) to a replica,
    /// [`Kind::TooLarge`](larder_store_api::Kind::TooLarge) for more.
    pub fn encrypt(&self, plain: &[u8], context: &[u8]) -> Result<Bytes> {
        let read = self.read_key("sync.group.encrypt")?;
        seal_app(read, self.id(), context, plain)
    }

    /// Opens what [`encrypt`](Self::encrypt) has sealed.
    ///
    /// # Errors
    /// [`Kind::Denied`](larder_store_api::Kind::Denied) to a replica, and for an epoch whose key is not held;
    /// [`Kind::Corrupt`](larder_store_api::Kind::Corrupt) where the data are another group's, were sealed for
    /// another context, or changed; [`Kind::Invalid`](larder_store_api::Kind::Invalid) and
    /// [`Kind::TooLarge`](larder_store_api::Kind::TooLarge) where they cannot be sealed data.
    pub fn decrypt(&self, sealed: &[u8], context: &[u8]) -> Result<Bytes> {
        let read = self.read_key("sync.group.decrypt")?;
        open_app(read, self.id(), context, sealed)
    }
}
