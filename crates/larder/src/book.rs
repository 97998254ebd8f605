//! The examples of the book, so that they are tested. That of the first backend is `examples/backend.rs`, which the
//! chapter includes.

macro_rules! chapters {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[doc = include_str!(concat!("../../../docs/book/src/", $path))]
            struct $name;
        )*
    };
}

chapters! {
    App: "start/app.md",
    Testing: "guides/testing.md",
    Iroh: "guides/iroh.md",
    Groups: "guides/groups.md",
    Network: "guides/network.md",
    Secrets: "guides/secrets.md",
    Monitor: "guides/monitor.md",
    Phone: "guides/phone.md",
}
