//! The beginning of a session: both sides find a group that they have in common, and say who they are in it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Trust, trust};
use crate::{
    groups::{Group, Standing},
    network::Stream,
    replicate::{
        Link, PATIENCE, Shared,
        fault::{Blame, Fault, Outcome, lies, lost, refuses},
        proof::{self, ANSWER_LEN, Ends, Role, Who},
        wire::{HELLO, read_frame, write_frame},
    },
};

impl Shared {
    /// Proves a group to a peer, and runs the session if the peer proves it too.
    pub(in crate::replicate) async fn ask(
        self: &Arc<Self>,
        link: &Arc<Link>,
        group: Group,
    ) -> Outcome<()> {
        let ends = Ends {
            binding: link.connection.binding(),
            asker: self.network.key(),
            answerer: link.connection.peer(),
        };
        let mut stream = link.connection.open().await.link()?;
        let (hello, nonce) = proof::hello(&ends, group.id()).local()?;
        stream.send.write_all(&[HELLO]).await.map_err(lost)?;
        write_frame(&mut stream.send, &hello).await?;
        let mut answer = [0; ANSWER_LEN];
        let answered = tokio::time::timeout(PATIENCE, stream.recv.read_exact(&mut answer)).await;
        answered.map_err(|_| Fault::stalls())?.map_err(lost)?;
        if !proof::check(&ends, group.id(), &nonce, &answer) {
            let peer = link.connection.peer();
            return Err(refuses("the peer is not a member of the group").with("peer", peer));
        }
        let who = self
            .hear_who(&ends, Role::Answerer, &group, &mut stream)
            .await?;
        self.say_who(&ends, Role::Asker, &group, &mut stream)
            .await?;
        self.run_session(link, group, who, stream).await
    }

    async fn say_who(
        &self,
        ends: &Ends,
        role: Role,
        group: &Group,
        stream: &mut Stream,
    ) -> Outcome<()> {
        // Whoever has the root uses it only to come back.
        let root = match group.standing() {
            Standing::Waiting => self.groups.0.root_secret(group.id()).await.local()?,
            _ => None,
        };
        let who = proof::say_who(ends, role, group, root.as_ref());
        write_frame(&mut stream.send, &who).await
    }

    /// Hears who the peer is; of a stranger, nothing more is heard.
    async fn hear_who(
        &self,
        ends: &Ends,
        role: Role,
        group: &Group,
        stream: &mut Stream,
    ) -> Outcome<Who> {
        let who = tokio::time::timeout(PATIENCE, read_frame(&mut stream.recv)).await;
        let who = who.map_err(|_| Fault::stalls())??;
        let who = who.ok_or_else(|| refuses("the peer does not say who it is"))?;
        let who = proof::hear_who(ends, role, group.id(), &group.usable_locates(), &who).peer()?;
        match trust(group, &who) {
            Trust::Stranger => {
                let error = refuses("the peer is not a member of the group");
                Err(error.with("device", who.device))
            }
            _ => Ok(who),
        }
    }

    pub(in crate::replicate) async fn answer_hello(
        self: &Arc<Self>,
        link: &Arc<Link>,
        mut stream: Stream,
    ) -> Outcome<()> {
        let ends = Ends {
            binding: link.connection.binding(),
            asker: link.connection.peer(),
            answerer: self.network.key(),
        };
        let hello = tokio::time::timeout(PATIENCE, read_frame(&mut stream.recv)).await;
        let hello = hello.map_err(|_| Fault::stalls())??;
        let hello = hello.ok_or_else(|| lies("the peer's hello is missing"))?;
        let groups = self.groups.groups();
        let (found, answer) = proof::answer(&ends, groups.iter().map(Group::id), &hello)?;
        let written = async {
            stream.send.write_all(&answer).await?;
            stream.send.flush().await
        };
        written.await.map_err(lost)?;
        match groups.into_iter().find(|group| Some(group.id()) == found) {
            Some(group) => {
                self.say_who(&ends, Role::Answerer, &group, &mut stream)
                    .await?;
                let who = self
                    .hear_who(&ends, Role::Asker, &group, &mut stream)
                    .await?;
                self.run_session(link, group, who, stream).await
            }
            // To a stranger this looks as if it had detected the failed proof itself.
            None => stream.send.shutdown().await.map_err(lost),
        }
    }
}
