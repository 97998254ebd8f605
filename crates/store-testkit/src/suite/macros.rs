//! The macros that turn lists of cases into tests.

/// Defines a `#[test]` for every case of the suite of [`BlobStore`](larder_store_api::BlobStore).
///
/// The first argument is an async function, or a closure that returns a future, which makes a fresh
/// [`Subject`](crate::suite::Subject) for each case. `lacks` names the capabilities that the backend
/// does not have, each with a reason: the cases that need them show as ignored. One more test fails if
/// `lacks` names a capability that the store has, or omits one that it lacks.
///
/// ```no_run
/// use larder_store_testkit::{MemoryStore, blob_store_suite, suite::Subject};
///
/// async fn subject() -> larder_store_api::Result<Subject<MemoryStore>> {
///     Ok(Subject::new(MemoryStore::new()))
/// }
/// blob_store_suite!(subject, lacks: [Reopen = "lives in memory", Close = "has no close"]);
/// ```
#[macro_export]
macro_rules! blob_store_suite {
    ($construct:expr $(, lacks: [$($need:ident = $reason:literal),* $(,)?])? $(,)?) => {
        $crate::__blob_cases! { tests ($) BlobStore, $construct, [$($($need = $reason),*)?]; }
    };
}

/// Defines a `#[test]` for every case of the suite of
/// [`CollectionStore`](larder_store_api::CollectionStore). Its arguments are those of
/// [`blob_store_suite`](crate::blob_store_suite).
#[macro_export]
macro_rules! collection_store_suite {
    ($construct:expr $(, lacks: [$($need:ident = $reason:literal),* $(,)?])? $(,)?) => {
        $crate::__collection_cases! {
            tests ($) CollectionStore, $construct, [$($($need = $reason),*)?];
        }
    };
}

/// Defines a `#[test]` for every case of the suite of [`RecordStore`](larder_store_api::RecordStore).
/// Its arguments are those of [`blob_store_suite`](crate::blob_store_suite).
#[macro_export]
macro_rules! record_store_suite {
    ($construct:expr $(, lacks: [$($need:ident = $reason:literal),* $(,)?])? $(,)?) => {
        $crate::__record_cases! { tests ($) RecordStore, $construct, [$($($need = $reason),*)?]; }
    };
}

/// Expands a list of cases: `list` makes the constant of a suite, `tests` its tests.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    (list $trait:ident; $($name:ident: $need:ident,)*) => {
        const CASES: &[$crate::suite::Case<dyn $crate::larder_store_api::$trait>] = &[$($crate::suite::Case {
            name: stringify!($name),
            need: $crate::suite::Need::$need,
            run: |fixture| Box::pin($name(fixture)),
        }),*];
    };
    // `$d` is a dollar sign for the inner macro: it marks the cases whose need is lacking.
    (tests ($d:tt) $trait:ident, $construct:expr, [$($lack:ident = $reason:literal),*];
     $($name:ident: $need:ident,)*) => {
        macro_rules! larder_case {
            $(($lack $d($d item:tt)*) => { #[ignore = $reason] $d($d item)* };)*
            ($d need:ident $d($d item:tt)*) => { $d($d item)* };
        }
        $(larder_case! { $need
            #[test]
            fn $name() {
                $crate::suite::run_case::<dyn $crate::larder_store_api::$trait, _, _, _>(
                    stringify!($name),
                    $construct,
                );
            }
        })*
        #[test]
        fn lacks_what_is_listed_and_nothing_else() {
            $crate::suite::check_lacks::<dyn $crate::larder_store_api::$trait, _, _, _>(
                &[$(stringify!($lack)),*],
                $construct,
            );
        }
    };
}
