//! The suites and the model for every backend, on a node that is not attached.

mod support;

use larder_store_testkit::{blob_store_suite, collection_store_suite, model_suite};
use support::subject;

mod blobs {
    use super::*;
    blob_store_suite!(subject);
}

mod collections {
    use super::*;
    collection_store_suite!(subject, lacks: [Watch = "the engine announces its own commits"]);
}

mod models {
    use super::*;
    model_suite!(blobs: subject, collections: subject);
}
