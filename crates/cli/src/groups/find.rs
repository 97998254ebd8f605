//! The meaning of a word on the command line among groups: `GROUP/REPO/PATH`.

use anyhow::Result;
use larder::{
    Store,
    groups::{Group, Groups, Member, Repo},
};

use super::shown::{label, name_of_group, short};
use crate::{
    app::MAKE_ONE,
    output::{Count, Shown},
    problem::Problem,
};

/// The shortest start of an id that stands for it.
const MIN_ID: usize = 6;

/// Something in a group.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) group: Group,
    pub(crate) member: Option<Member>,
    /// Within the member's repo.
    pub(crate) path: Option<String>,
}

/// The store's groups; `None` if it has none, and then nothing is unlocked.
pub(crate) async fn known(store: &Store) -> Result<Option<Groups>> {
    match Groups::exist_in(store.collections()).await? {
        true => Ok(Some(store.groups().await?)),
        false => Ok(None),
    }
}

/// Returns the group that is meant, which may be left out if there is only one.
pub(crate) async fn pick(groups: &Groups, text: Option<&str>) -> Result<Group> {
    let mut all = groups.groups();
    let Some(text) = text else {
        return match all.len() {
            0 => Err(no_group()),
            1 => Ok(all.remove(0)),
            _ => Err(Problem::usage(
                "this store is in several groups",
                "name one; `larder group ls` shows them",
            )
            .into()),
        };
    };
    match find_group(groups, text).await? {
        Some((group, None)) => Ok(group),
        _ => Err(Problem::new(
            format!("this store is in no group {text:?}"),
            "`larder group ls` shows its groups",
        )
        .into()),
    }
}

fn no_group() -> anyhow::Error {
    Problem::new("this store is in no group", MAKE_ONE).into()
}

/// Returns the place that `text` names; `None` if it does not begin with a group.
pub(crate) async fn place(groups: &Groups, text: &str) -> Result<Option<Place>> {
    let Some((group, rest)) = find_group(groups, text).await? else {
        return Ok(None);
    };
    let Some(rest) = rest else {
        return Ok(Some(Place {
            group,
            member: None,
            path: None,
        }));
    };
    let mut found = Vec::new();
    for member in group.members().await? {
        let key = member.repo.key().to_string();
        if let Some(path) = after(member.name.as_deref(), &key, rest) {
            found.push((member.clone(), path.map(str::to_owned)));
        }
    }
    match found.first() {
        // Of `a` and `a/b` neither may take the other's paths.
        Some((first, _)) if found.len() > 1 => {
            let mut what = format!(
                "{} members of {} may be meant by {rest:?}",
                found.len(),
                Shown(&label(&group).await?)
            );
            for (member, _) in &found {
                let files = member.repo.root().await?.files;
                let ours = if member.repo.is_ours() { ", yours" } else { "" };
                let name = Shown(member.name.as_deref().unwrap_or_default());
                what += &format!(
                    "\n  {}  {name}  {} file(s){ours}",
                    short(&member.repo.key()),
                    Count(files)
                );
            }
            let advice = format!(
                "write the beginning of a key instead of the name, as in {}/{}; \
                 `larder group rename` gives a member of yours another name",
                Shown(&label(&group).await?),
                short(&first.repo.key())
            );
            Err(Problem::usage(what, advice).into())
        }
        Some((member, path)) => Ok(Some(Place {
            member: Some(member.clone()),
            path: path.clone(),
            group,
        })),
        None => Err(Problem::new(
            format!(
                "{} has no member {:?}",
                Shown(&label(&group).await?),
                rest.split('/').next().unwrap_or(rest)
            ),
            "`larder group members` shows them",
        )
        .into()),
    }
}

/// The group that `text` begins with, and what comes after it.
async fn find_group<'a>(
    groups: &Groups,
    text: &'a str,
) -> Result<Option<(Group, Option<&'a str>)>> {
    let mut found = Vec::new();
    for group in groups.groups() {
        let name = name_of_group(&group).await?;
        if let Some(rest) = after(name.as_deref(), &group.id().to_string(), text) {
            found.push((group, rest));
        }
    }
    if let [(one, _), (other, _), ..] = &found[..] {
        return Err(Problem::usage(
            format!(
                "two groups may be meant by {text:?}: {} and {}",
                short(&one.id()),
                short(&other.id())
            ),
            "write the beginning of an id instead of the name; `larder group ls` shows what is in each, \
             `larder group rename` gives one another name",
        )
        .into());
    }
    Ok(found.into_iter().next())
}

/// Returns the rest of `text` after the name, or the beginning of an id, with which it begins.
fn after<'a>(name: Option<&str>, id: &str, text: &'a str) -> Option<Option<&'a str>> {
    if let Some(rest) = name.and_then(|name| text.strip_prefix(name)) {
        match rest.strip_prefix('/') {
            Some(rest) => return Some(Some(rest).filter(|rest| !rest.is_empty())),
            None if rest.is_empty() => return Some(None),
            None => {}
        }
    }
    let (first, rest) = match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest).filter(|rest| !rest.is_empty())),
        None => (text, None),
    };
    (first.len() >= MIN_ID && id.starts_with(first)).then_some(rest)
}

impl Place {
    /// The repo that is meant, which must be ours, for a change.
    pub(crate) fn own(&self) -> Result<&Repo> {
        match &self.member {
            Some(member) if member.repo.is_ours() => Ok(&member.repo),
            Some(member) => {
                let name = member.name.clone();
                let owner = name.unwrap_or_else(|| short(&member.repo.key()));
                let what = format!(
                    "only its owner can change a repo, and this is {}'s",
                    Shown(&owner)
                );
                Err(Problem::new(what, format!("ask {}", Shown(&owner))).into())
            }
            None => Err(Problem::usage("a group is meant", "write GROUP/REPO/PATH").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn names_and_beginnings_of_ids_are_found() {
        let id = "0123456789abcdef";
        let find = |text| after(Some("the/group"), id, text);
        assert_eq!(find("the/group"), Some(None));
        assert_eq!(find("the/group/"), Some(None));
        assert_eq!(find("the/group/a/b"), Some(Some("a/b")));
        assert_eq!(find("the/groups"), None);
        assert_eq!(find("012345"), Some(None));
        assert_eq!(find("0123456/a/b"), Some(Some("a/b")));
        assert_eq!(find("01234"), None);
        assert_eq!(after(None, id, "the/group"), None);
    }
}
