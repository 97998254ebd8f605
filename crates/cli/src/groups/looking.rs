//! Members that are looked for: whom, where, and how it failed.

use std::fmt;

use anyhow::Result;
use larder::{
    api::PublicKey,
    groups::{Attempt, Group, Replicator},
};
use serde::Serialize;

use super::shown::{short, told_apart};
use crate::output::Shown;

/// The most members that a text names.
const MAX_NAMED: usize = 8;

/// A member's device that is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sought {
    /// The member's name; `null` if no known member says that the device is theirs.
    pub(crate) member: Option<String>,
    /// Its key; `null` if no address tells it.
    device: Option<String>,
    /// The addresses at which it is looked for.
    addresses: Vec<String>,
    /// The reason why the last attempt has failed; `null` before one has ended.
    failure: Option<String>,
}

/// Returns the members of a group that are looked for, and not those that are connected.
pub(crate) async fn sought(replicator: &Replicator, group: &Group) -> Result<Vec<Sought>> {
    let mut attempts = replicator.attempts(group.id());
    attempts.retain(|attempt| !attempt.connected);
    // How a device is not found by its key alone says little where there is a place to look.
    attempts.sort_by_key(|attempt| places(&attempt.address).is_empty());
    let mut all: Vec<Sought> = Vec::new();
    for attempt in attempts {
        let device = attempt.device.map(|device| device.to_string());
        let failure = attempt
            .failure
            .as_ref()
            .map(|error| error.message().to_owned());
        let same = |one: &&mut Sought| device.is_some() && one.device == device;
        if let Some(same) = all.iter_mut().find(same) {
            if !places(&attempt.address).is_empty() {
                same.failure = same.failure.take().or(failure);
            }
            same.addresses.push(attempt.address);
            continue;
        }
        let member = match (attempt.repo, attempt.device) {
            (Some(repo), _) => Some(told_apart(group, repo).await?),
            (None, Some(device)) => device_name(replicator, group, device).await?,
            (None, None) => None,
        };
        all.push(Sought {
            member,
            device,
            addresses: vec![attempt.address],
            failure,
        });
    }
    Ok(all)
}

/// The text about a group in which there is nobody else.
pub(crate) const NOBODY_JOINED: &str = "nobody has joined yet";

/// Returns true if nobody of a group is looked for because no other member is known.
pub(crate) async fn is_alone(
    replicator: &Replicator,
    group: &Group,
    sought: &[Sought],
) -> Result<bool> {
    Ok(sought.is_empty() && replicator.members(group.id()).await?.is_empty())
}

/// An address, and why nobody was reached there.
pub(super) type State = (String, Option<String>);

/// Returns the states of these attempts, to tell when they change.
pub(super) fn states(attempts: &[Attempt]) -> Vec<State> {
    let state = |attempt: &Attempt| {
        let failure = attempt
            .failure
            .as_ref()
            .map(|error| error.message().to_owned());
        (attempt.address.clone(), failure)
    };
    attempts.iter().map(state).collect()
}

/// Returns the name of a member's device: by the member whose repo tells its address. Readers and
/// replicas have none.
pub(super) async fn device_name(
    replicator: &Replicator,
    group: &Group,
    device: PublicKey,
) -> Result<Option<String>> {
    for (repo, route) in group.routes().await? {
        if replicator.peer_of(&route.address) == Some(device) {
            return Ok(Some(told_apart(group, repo).await?));
        }
    }
    Ok(None)
}

/// Returns the places that an address names: hosts with ports, and relays.
pub(crate) fn places(address: &str) -> Vec<&str> {
    let (_, mut rest) = address.split_once('?').unwrap_or((address, ""));
    let mut places = Vec::new();
    while !rest.is_empty() {
        // A relay's URL is all that remains.
        if let Some(relay) = rest.strip_prefix("relay=") {
            places.push(relay);
            break;
        }
        let (part, more) = rest.split_once('&').unwrap_or((rest, ""));
        places.push(part.strip_prefix("ip=").unwrap_or(part));
        rest = more;
    }
    places
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.member, &self.device) {
            (Some(member), _) => write!(f, "{}", Shown(member))?,
            (None, Some(device)) => write!(f, "the device {}", short(device))?,
            (None, None) => write!(f, "a member")?,
        }
        let mut places: Vec<_> = self.addresses.iter().flat_map(|a| places(a)).collect();
        places.sort_unstable();
        places.dedup();
        let places = match places.is_empty() {
            true => "by its key alone".to_owned(),
            false => places.join(", "),
        };
        let failure = self.failure.as_deref().unwrap_or("no answer yet");
        write!(f, " ({}: {})", Shown(&places), Shown(failure))
    }
}

/// Returns the text for all of these.
pub(crate) fn text(sought: &[Sought], separator: &str) -> String {
    let mut texts: Vec<_> = sought
        .iter()
        .take(MAX_NAMED)
        .map(ToString::to_string)
        .collect();
    if sought.len() > MAX_NAMED {
        texts.push(format!("{} more", sought.len() - MAX_NAMED));
    }
    match texts.is_empty() {
        true => "members, of whom no address is known".to_owned(),
        false => texts.join(separator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_with_its_places_and_its_failure() {
        let address = "iroh:00?ip=127.0.0.1:7&ip=[::1]:7&relay=https://r/?a=b&c";
        assert_eq!(
            places(address),
            ["127.0.0.1:7", "[::1]:7", "https://r/?a=b&c"]
        );
        assert_eq!(places("iroh:00"), [""; 0]);
        let mut one = Sought {
            member: Some("ann".to_owned()),
            device: Some("0123456789abcdef".to_owned()),
            addresses: vec!["iroh:00?ip=127.0.0.1:7".to_owned()],
            failure: None,
        };
        assert_eq!(one.to_string(), "ann (127.0.0.1:7: no answer yet)");
        one.failure = Some("nobody answers".to_owned());
        one.member = None;
        one.addresses = vec!["iroh:00".to_owned()];
        assert_eq!(
            one.to_string(),
            "the device 0123456789 (by its key alone: nobody answers)"
        );
        assert!(text(&vec![one; 10], "; ").ends_with("; 2 more"));
        assert!(text(&[], "; ").contains("no address is known"));
    }
}
