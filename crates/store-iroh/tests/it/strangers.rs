//! Strangers get nothing but what was opened, whatever they ask, and learn nothing else.

use bao_tree::{ChunkNum, ChunkRanges};
use iroh::{Endpoint, endpoint::Connection, protocol::Router};
use iroh_blobs::{
    Hash,
    protocol::{
        ChunkRangesExt, ChunkRangesSeq, ERR_PERMISSION, GetManyRequest, GetRequest, ObserveRequest,
        PushRequest, Request,
    },
};
use larder_store_api::Kind;
use larder_store_engine::{Blobs, Root, TagName};
use larder_store_iroh::{
    FetchOptions, MAX_SHARES, Share, Shares, fetch, serve, store_collection, to_engine_hash,
    to_iroh_hash,
};

use crate::support::{bytes, connection, engine, loopback};

/// How a peer answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Bytes(Vec<u8>),
    Reset(u64),
}

const REFUSED: Answer = Answer::Reset(ERR_PERMISSION.into_inner());

/// Sends raw bytes as a request, and waits for the whole answer, or its first 8 bytes for an
/// observer, which gets no end.
async fn ask_raw(connection: &Connection, request: &[u8], observe: bool) -> Answer {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // A peer that refuses may stop reading before all is sent.
    send.write_all(request).await.ok();
    send.finish().ok();
    let answer = if observe {
        let mut first = [0; 1];
        recv.read_exact(&mut first)
            .await
            .map(|()| first.to_vec())
            .map_err(|error| match error {
                iroh::endpoint::ReadExactError::ReadError(error) => error,
                other => panic!("{other}"),
            })
    } else {
        recv.read_to_end(1 << 30)
            .await
            .map_err(|error| match error {
                iroh::endpoint::ReadToEndError::Read(error) => error,
                other => panic!("{other}"),
            })
    };
    match answer {
        Ok(bytes) => Answer::Bytes(bytes),
        Err(iroh::endpoint::ReadError::Reset(code)) => Answer::Reset(code.into_inner()),
        Err(other) => panic!("{other}"),
    }
}

async fn ask(connection: &Connection, request: impl Into<Request>) -> Answer {
    let request = request.into();
    let observe = matches!(request, Request::Observe(_));
    let bytes = postcard::to_stdvec(&request).unwrap();
    ask_raw(connection, &bytes, observe).await
}

/// Every way to ask for some of a hash.
fn ways(hash: Hash) -> Vec<(&'static str, Request)> {
    let some = ChunkRanges::from(ChunkNum(0)..ChunkNum(1));
    let get = |ranges: ChunkRangesSeq| Request::Get(GetRequest::new(hash, ranges));
    vec![
        ("blob", GetRequest::blob(hash).into()),
        ("range", GetRequest::blob_ranges(hash, some.clone()).into()),
        ("all", GetRequest::all(hash).into()),
        ("size", get(ChunkRangesSeq::verified_size())),
        ("child sizes", get(ChunkRangesSeq::verified_child_sizes())),
        ("nothing", get(ChunkRangesSeq::empty())),
        (
            "first child",
            GetRequest::builder()
                .child(0, some.clone())
                .build(hash)
                .into(),
        ),
        (
            "far child",
            GetRequest::builder()
                .child(9, some.clone())
                .build(hash)
                .into(),
        ),
        (
            "root and children",
            GetRequest::builder()
                .root(ChunkRanges::last_chunk())
                .next(some)
                .build_open(hash)
                .into(),
        ),
        ("many", GetManyRequest::from_iter([hash]).into()),
        ("observe", ObserveRequest::new(hash).into()),
    ]
}

/// Ways that ask for children, which only an open sequence has.
const OF_CHILDREN: [&str; 5] = [
    "all",
    "child sizes",
    "first child",
    "far child",
    "root and children",
];

struct Node {
    blobs: Blobs,
    shares: Shares,
    router: Router,
    endpoint: Endpoint,
    stranger: Connection,
    /// A collection, which nothing opens at first, and its children.
    root: Root,
    children: Vec<Hash>,
    single: Root,
}

impl Node {
    async fn start() -> Self {
        let blobs = engine().await;
        let mut entries = Vec::new();
        let mut pins = Vec::new();
        for (seed, size) in [(1, 10), (2, 20_000), (3, 300_000)] {
            let pin = blobs.add(bytes(seed, size)).await.unwrap();
            entries.push((format!("{size}"), pin.hash()));
            pins.push(pin);
        }
        let children = entries
            .iter()
            .map(|(_, hash)| to_iroh_hash(*hash))
            .collect();
        let tag = TagName::try_from("collection").unwrap();
        let root = store_collection(&blobs, entries, Some(tag)).await.unwrap();
        let single = blobs.add(bytes(4, 50_000)).await.unwrap();
        let tag = TagName::try_from("single").unwrap();
        blobs.tags().set(tag, single.root()).await.unwrap();
        let shares = Shares::new(&blobs);
        let router = serve(&loopback().await, &blobs, &shares);
        let endpoint = loopback().await;
        let stranger = connection(&endpoint, router.endpoint()).await;
        Self {
            root: root.root(),
            single: single.root(),
            blobs,
            shares,
            router,
            endpoint,
            stranger,
            children,
        }
    }

    async fn open(&self, hash: Hash, children_too: bool) {
        for (way, request) in ways(hash) {
            let refused = ask(&self.stranger, request).await == REFUSED;
            let expected = !children_too && OF_CHILDREN.contains(&way);
            assert_eq!(refused, expected, "{way}");
        }
    }

    async fn closed(&self, hash: Hash) {
        for (way, request) in ways(hash) {
            let answer = ask(&self.stranger, request).await;
            assert_eq!(answer, REFUSED, "{way}");
        }
    }

    async fn all_closed(&self) {
        self.closed(to_iroh_hash(self.root.hash)).await;
        self.closed(to_iroh_hash(self.single.hash)).await;
        for child in &self.children {
            self.closed(*child).await;
        }
        self.closed(Hash::new(b"not here at all")).await;
        self.closed(Hash::EMPTY).await;
    }

    async fn end(self) {
        self.endpoint.close().await;
        self.router.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_open_at_first() {
    let node = Node::start().await;
    node.all_closed().await;
    node.end().await;
}

#[tokio::test]
async fn an_open_blob_opens_itself_and_nothing_else() {
    let node = Node::start().await;
    node.shares.allow(node.single).unwrap();
    node.open(to_iroh_hash(node.single.hash), false).await;
    node.closed(to_iroh_hash(node.root.hash)).await;
    node.closed(node.children[0]).await;
    let mixed = [to_iroh_hash(node.single.hash), node.children[0]];
    let mixed = GetManyRequest::from_iter(mixed);
    assert_eq!(ask(&node.stranger, mixed).await, REFUSED);
    node.shares.revoke(node.single);
    node.all_closed().await;
    node.end().await;
}

#[tokio::test]
async fn an_open_sequence_opens_what_it_names() {
    let node = Node::start().await;
    node.shares.allow(node.root).unwrap();
    node.open(to_iroh_hash(node.root.hash), true).await;
    for child in &node.children {
        node.open(*child, false).await;
    }
    let many = GetManyRequest::from_iter(node.children.clone());
    assert_ne!(ask(&node.stranger, many).await, REFUSED);
    node.closed(to_iroh_hash(node.single.hash)).await;
    node.closed(Hash::new(b"not here at all")).await;
    node.shares.revoke(node.root);
    node.all_closed().await;
    node.end().await;
}

/// The bytes of an open raw blob may be hashes that somebody put there to get at other blobs.
#[tokio::test]
async fn an_open_raw_root_does_not_open_what_it_names() {
    let node = Node::start().await;
    node.shares.allow(Root::raw(node.root.hash)).unwrap();
    node.open(to_iroh_hash(node.root.hash), false).await;
    for child in &node.children {
        node.closed(*child).await;
    }
    node.end().await;
}

#[tokio::test]
async fn an_open_tag_opens_what_it_names_at_the_time() {
    let node = Node::start().await;
    let name = TagName::try_from("shared").unwrap();
    node.shares.allow_tag(name.clone()).unwrap();
    assert_eq!(node.shares.list(), [Share::Tag(name.clone())]);
    node.all_closed().await;
    let tags = node.blobs.tags();
    tags.set(name.clone(), node.single).await.unwrap();
    node.open(to_iroh_hash(node.single.hash), false).await;
    node.closed(node.children[0]).await;
    tags.set(name.clone(), node.root).await.unwrap();
    node.open(to_iroh_hash(node.root.hash), true).await;
    node.open(node.children[0], false).await;
    node.closed(to_iroh_hash(node.single.hash)).await;
    node.shares.revoke_tag(&name);
    node.all_closed().await;
    node.end().await;
}

#[tokio::test]
async fn a_sequence_that_comes_later_opens_then() {
    let node = Node::start().await;
    let child = node.blobs.add("later").await.unwrap();
    let sequence = larder_store_engine::Hash::of(child.hash().as_bytes());
    node.shares.allow(Root::hash_seq(sequence)).unwrap();
    node.closed(to_iroh_hash(child.hash())).await;
    let bytes = child.hash().as_bytes().to_vec();
    let _sequence = node.blobs.add(bytes).await.unwrap();
    node.open(to_iroh_hash(child.hash()), false).await;
    node.end().await;
}

#[tokio::test]
async fn nobody_writes_here() {
    let node = Node::start().await;
    node.shares.allow(node.root).unwrap();
    let strange = Hash::new(b"pushed");
    for hash in [to_iroh_hash(node.root.hash), strange] {
        let push = PushRequest::new(hash, ChunkRangesSeq::all());
        // As on the wire: kind, length, request, then the bytes to write.
        let mut request = vec![8];
        let body = postcard::to_stdvec(&push).unwrap();
        request.extend(postcard::to_stdvec(&(body.len() as u64)).unwrap());
        request.extend(body);
        request.extend(6_u64.to_le_bytes());
        request.extend(b"pushed");
        assert_eq!(ask_raw(&node.stranger, &request, false).await, REFUSED);
    }
    let status = node.blobs.status(to_engine_hash(strange)).await;
    assert!(status.unwrap().is_none());
    node.end().await;
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let node = Node::start().await;
    node.shares.allow(node.single).unwrap();
    let hash = to_iroh_hash(node.single.hash);
    let mut far = vec![0];
    far.extend(hash.as_bytes());
    far.extend([1, 255, 255, 255, 255, 255, 255, 255, 255, 127, 1, 0]);
    let mut wide = vec![1];
    wide.extend(hash.as_bytes());
    wide.extend(postcard::to_stdvec(&vec![1_u64; 500_000]).unwrap());
    for (what, request) in [
        ("empty", Vec::new()),
        ("unknown kind", vec![5; 40]),
        ("short", vec![0, 1, 2]),
        ("random", bytes(9, 10_000)),
        ("too long", vec![0; 3 << 20]),
        ("a child beyond count", far),
        ("too many ranges", wide),
    ] {
        let answer = ask_raw(&node.stranger, &request, false).await;
        assert_eq!(answer, Answer::Reset(0), "{what}");
    }
    node.open(hash, false).await;
    node.end().await;
}

#[tokio::test]
async fn a_refusal_is_told_to_whoever_fetches() {
    let node = Node::start().await;
    let blobs = engine().await;
    let roots = [node.root, node.single, Root::raw(node.root.hash)];
    for root in roots {
        let options = FetchOptions::default();
        let error = fetch(&blobs, &node.stranger, root, options).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(
            error.to_string(),
            "blobs.fetch: denied: the peer refuses to give this"
        );
    }
    node.end().await;
}

#[tokio::test]
async fn many_requests_at_once_wait_for_each_other() {
    let node = Node::start().await;
    node.shares.allow(node.single).unwrap();
    let hash = to_iroh_hash(node.single.hash);
    let asks = (0..500).map(|_| ask(&node.stranger, GetRequest::blob(hash)));
    let answers = futures_util::future::join_all(asks).await;
    let first = &answers[0];
    assert!(matches!(first, Answer::Bytes(bytes) if bytes.len() > 50_000));
    assert!(answers.iter().all(|answer| answer == first));
    node.end().await;
}

#[tokio::test]
async fn so_much_can_be_open() {
    let blobs = engine().await;
    let shares = Shares::new(&blobs);
    let root = |i: usize| Root::raw(larder_store_engine::Hash::of(i.to_le_bytes()));
    for i in 0..MAX_SHARES {
        shares.allow(root(i)).unwrap();
    }
    shares.allow(root(0)).unwrap();
    let error = shares.allow(root(MAX_SHARES)).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
    let name = TagName::try_from("x").unwrap();
    let error = shares.allow_tag(name).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
    shares.revoke(root(0));
    shares.allow(root(MAX_SHARES)).unwrap();
}
