//! Repeats calls to Veilid when it asks for that.

use std::{future::Future, time::Duration};

use larder_store_api::Result;
use larder_veilid_node::{api_error, veilid_core::VeilidAPIError};
use tokio::time::Instant;

/// The time for which a call is repeated before it fails.
const DEADLINE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Repeats a call until it succeeds, fails for good, or the time is over.
pub(super) async fn retrying<T, F>(
    operation: &'static str,
    mut call: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T, VeilidAPIError>>,
{
    let end = Instant::now() + DEADLINE;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match call().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let again = matches!(
            error,
            VeilidAPIError::TryAgain { .. } | VeilidAPIError::Timeout
        );
        let waiting = pause.mul_f64(jitter());
        if !again || Instant::now() + waiting >= end {
            return Err(api_error(operation, error));
        }
        tracing::debug!(operation, %error, ?waiting, "Veilid asks to try again");
        tokio::time::sleep(waiting).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Returns a factor between a half and one, so that calls that failed together are not repeated
/// together.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // A fresh state hashes the unit value to a random number.
    let random = RandomState::new().hash_one(()) as u32;
    0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use larder_store_api::Kind;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_asks_for_it_is_tried_again_within_the_deadline() {
        let calls = Cell::new(0);
        let start = Instant::now();
        let failed = retrying("record.get", async || {
            calls.set(calls.get() + 1);
            Err::<(), _>(VeilidAPIError::Timeout)
        });
        assert_eq!(failed.await.unwrap_err().kind(), Kind::Unavailable);
        assert!(start.elapsed() <= DEADLINE, "{:?}", start.elapsed());
        assert!((8..100).contains(&calls.get()), "{calls:?}");

        calls.set(0);
        let found = retrying("record.get", async || {
            calls.set(calls.get() + 1);
            match calls.get() {
                1..3 => Err(VeilidAPIError::try_again("offline")),
                _ => Ok(calls.get()),
            }
        });
        assert_eq!(found.await.expect("the third succeeds"), 3);

        let wrong = retrying("record.get", async || {
            calls.set(calls.get() + 1);
            Err::<(), _>(VeilidAPIError::internal("no"))
        });
        assert_eq!(wrong.await.unwrap_err().kind(), Kind::Internal);
        assert_eq!(calls.get(), 4, "it is not tried again");
    }
}
