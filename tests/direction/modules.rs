//! Reads from the source files of a crate which of its modules use each other.
//!
//! Reads paths: those of `use`, and those in code and macros that begin with `crate`, `self` or
//! `super`. Follows re-exports to the module that defines the item. Ignores code that is compiled only
//! for tests, and links in comments. A method call does not name a module, so it is not detected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The path of a module or an item, from the root of its crate.
pub type ItemPath = Vec<String>;

/// Sibling modules, each with the siblings that it uses.
pub type Siblings = BTreeMap<String, BTreeSet<String>>;

/// The keywords before the name of an item.
const ITEMS: [&str; 8] = [
    "struct", "enum", "union", "trait", "type", "const", "static", "fn",
];

/// The most re-exports that are followed for one name.
const MAX_STEPS: usize = 64;

/// The modules of a crate, by their paths. The root has an empty path.
#[derive(Debug, Default)]
pub struct Modules(BTreeMap<ItemPath, Module>);

#[derive(Debug, Default)]
struct Module {
    /// The names of the items that it defines.
    defines: BTreeSet<String>,
    /// The names that it imports, with their paths.
    imports: BTreeMap<String, ItemPath>,
    /// The modules from which it imports all names.
    globs: BTreeSet<ItemPath>,
    /// The paths that it uses.
    uses: BTreeSet<ItemPath>,
    /// All words of its code.
    words: BTreeSet<String>,
}

impl Modules {
    /// Reads the crate with this root file.
    pub fn read(root: &Path) -> Self {
        let mut modules = Self::default();
        modules.read_file(root, Folders::of_root(root), &[]);
        modules
    }

    fn read_file(&mut self, file: &Path, folders: Folders, module: &[String]) {
        let text = fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", file.display()));
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{} is not Rust: {error}", file.display()));
        self.0.entry(module.to_vec()).or_default();
        self.read_tokens(tokens, Some(&folders), module);
    }

    /// Reads the body of a module, or a group of tokens within it, which has no folders.
    fn read_tokens(&mut self, tokens: TokenStream, folders: Option<&Folders>, module: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut given_file = None;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at..];
            let (first, second) = (word(rest, 0), word(rest, 1));
            at += match (first.as_deref(), second) {
                (None, _) if is_punct(token, '#') => match attribute(rest) {
                    Some(text) if text == "cfg(test)" => 2 + item_len(&rest[2..]),
                    Some(text) => {
                        let file = text.strip_prefix("path=\"");
                        let file = file.and_then(|file| file.strip_suffix('"'));
                        if let (Some(folders), Some(file)) = (folders, file) {
                            given_file = Some(folders.of_file.join(file));
                        }
                        2
                    }
                    None => 1,
                },
                // The path in `pub(in path)` does not use anything.
                (Some("pub"), _) => match rest.get(1) {
                    Some(TokenTree::Group(_)) => 2,
                    _ => 1,
                },
                (Some("use"), _) => {
                    let end = rest.iter().position(|token| is_punct(token, ';'));
                    let end = end.unwrap_or(rest.len());
                    self.read_use(&rest[1..end], &ItemPath::new(), module);
                    end
                }
                (Some("mod"), Some(name)) if folders.is_some() => {
                    let folders = folders.expect("it was just looked at");
                    let child: ItemPath = [module, std::slice::from_ref(&name)].concat();
                    if let Some(TokenTree::Group(body)) = rest.get(2) {
                        self.0.entry(child.clone()).or_default();
                        let folders = folders.within(&name);
                        self.read_tokens(body.stream(), Some(&folders), &child);
                    } else if let Some(file) = given_file.take() {
                        self.read_file(&file, Folders::of_root(&file), &child);
                    } else {
                        let (file, folders) = folders.child(&name);
                        self.read_file(&file, folders, &child);
                    }
                    3
                }
                (Some("macro_rules"), _) if folders.is_some() => {
                    self.module(module).defines.extend(word(rest, 2));
                    3
                }
                (Some(keyword), Some(name)) if folders.is_some() && ITEMS.contains(&keyword) => {
                    self.module(module).defines.insert(name);
                    2
                }
                (Some("crate" | "self" | "super"), _) => {
                    let (path, len) = path_at(rest);
                    if let Some(path) = absolute(&path, module) {
                        self.module(module).uses.insert(path);
                    }
                    len
                }
                (Some(_), _) => {
                    self.module(module).words.extend(first);
                    1
                }
                _ => {
                    if let TokenTree::Group(group) = token {
                        self.read_tokens(group.stream(), None, module);
                    }
                    1
                }
            };
        }
    }

    /// Reads one tree of a `use`, which continues the path `before`.
    fn read_use(&mut self, tokens: &[TokenTree], before: &[String], module: &[String]) {
        let (path, len) = path_at(tokens);
        let path = [before, &path].concat();
        match tokens.get(len) {
            Some(TokenTree::Group(group)) => {
                let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
                for tree in tokens.split(|token| is_punct(token, ',')) {
                    self.read_use(tree, &path, module);
                }
            }
            Some(token) if is_punct(token, '*') => {
                if let Some(path) = absolute(&path, module) {
                    self.module(module).globs.insert(path.clone());
                    self.module(module).uses.insert(path);
                }
            }
            _ => {
                let Some(path) = absolute(&path, module) else {
                    return;
                };
                let alias = (word(tokens, len).as_deref() == Some("as"))
                    .then(|| word(tokens, len + 1))
                    .flatten();
                let module = self.module(module);
                if let Some(name) = alias.or_else(|| path.last().cloned()) {
                    module.imports.insert(name, path.clone());
                }
                module.uses.insert(path);
            }
        }
    }

    fn module(&mut self, path: &[String]) -> &mut Module {
        self.0
            .get_mut(path)
            .expect("a module is there before its body is read")
    }

    /// Returns the modules directly below `parent`, each with those of them that it uses.
    pub fn siblings(&self, parent: &[String]) -> Siblings {
        let mut siblings = Siblings::new();
        for (path, module) in &self.0 {
            let Some([name, ..]) = path.strip_prefix(parent) else {
                continue;
            };
            let used = siblings.entry(name.clone()).or_default();
            for target in self.used_by(module) {
                match target.strip_prefix(parent) {
                    Some([other, ..]) if other != name => drop(used.insert(other.clone())),
                    _ => {}
                }
            }
        }
        siblings
    }

    /// Returns the paths of all modules.
    pub fn paths(&self) -> impl Iterator<Item = &ItemPath> {
        self.0.keys()
    }

    fn used_by(&self, module: &Module) -> BTreeSet<ItemPath> {
        let paths = module.uses.iter().cloned();
        // Names that are imported by `use module::*` count only if they are used.
        let by_glob = module.globs.iter().flat_map(|glob| {
            let words = module.words.iter().filter(|word| {
                !module.defines.contains(*word) && !module.imports.contains_key(*word)
            });
            words.map(move |word| [&glob[..], std::slice::from_ref(word)].concat())
        });
        paths
            .chain(by_glob)
            .flat_map(|path| self.resolve(&path))
            .collect()
    }

    /// Returns the module that defines the target of a path, and those that re-export it on the way.
    fn resolve(&self, path: &[String]) -> Vec<ItemPath> {
        let mut at = ItemPath::new();
        let mut passed = Vec::new();
        let mut rest: Vec<String> = path.iter().rev().cloned().collect();
        for _ in 0..MAX_STEPS {
            let Some(name) = rest.pop() else { break };
            let child = [&at[..], std::slice::from_ref(&name)].concat();
            // An item and a module may have the same name; only the module leads further.
            let is_item = rest.is_empty() && self.0[&at].defines.contains(&name);
            if self.0.contains_key(&child) && !is_item {
                at = child;
                continue;
            }
            let Some(next) = self.import(&at, &name) else {
                break;
            };
            rest.extend(next.into_iter().rev());
            passed.push(std::mem::take(&mut at));
        }
        passed.push(at);
        passed
    }

    /// Returns the path that a module imports under this name.
    fn import(&self, at: &[String], name: &str) -> Option<ItemPath> {
        let module = self.0.get(at)?;
        let here = [at, &[name.to_owned()]].concat();
        if module.defines.contains(name) {
            return None;
        }
        // An import that begins with its own name refers to another crate.
        let known = module.imports.get(name);
        if let Some(path) = known.filter(|path| !path.starts_with(&here)) {
            return Some(path.clone());
        }
        module.globs.iter().find_map(|glob| {
            let there = self.0.get(glob)?;
            let has = there.defines.contains(name) || there.imports.contains_key(name);
            has.then(|| [&glob[..], &[name.to_owned()]].concat())
        })
    }
}

fn word(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Returns the words of the path at the beginning, and its number of tokens including a final `::`.
fn path_at(tokens: &[TokenTree]) -> (ItemPath, usize) {
    let is_colon = |at: usize| tokens.get(at).is_some_and(|token| is_punct(token, ':'));
    let mut path = ItemPath::new();
    let mut at = 0;
    while let Some(name) = word(tokens, at) {
        path.push(name);
        at += 1;
        if !(is_colon(at) && is_colon(at + 1)) {
            break;
        }
        at += 2;
    }
    (path, at)
}

/// Converts a path of `module` to one from the root of the crate; `None` if it refers to the module
/// itself.
///
/// A path that may refer to another crate is taken as relative to the module: if it is not found there,
/// it belongs to another crate.
fn absolute(path: &[String], module: &[String]) -> Option<ItemPath> {
    let (mut at, mut rest) = (module.to_vec(), path);
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            _ => break,
        }
        rest = after;
    }
    let path = [&at[..], rest].concat();
    (path != module).then_some(path)
}

/// Returns the text within the `[]` of an attribute, without spaces.
fn attribute(tokens: &[TokenTree]) -> Option<String> {
    match tokens.get(1) {
        Some(TokenTree::Group(group)) => {
            let text = group.stream().to_string();
            Some(text.split_whitespace().collect())
        }
        _ => None,
    }
}

/// Returns the number of tokens of the item at the beginning, including its attributes.
fn item_len(tokens: &[TokenTree]) -> usize {
    let mut is_use = false;
    for (at, token) in tokens.iter().enumerate() {
        let is_body =
            matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        is_use |= word(tokens, at).is_some_and(|word| word == "use");
        if is_punct(token, ';') || (is_body && !is_use) {
            return at + 1;
        }
    }
    tokens.len()
}

/// The folders of a module's children.
struct Folders {
    of_children: PathBuf,
    /// The folder of children with an explicit path.
    of_file: PathBuf,
}

impl Folders {
    fn of_root(file: &Path) -> Self {
        let folder = file.parent().expect("a file lies in a folder");
        Self {
            of_children: folder.to_owned(),
            of_file: folder.to_owned(),
        }
    }

    /// Returns the folders of a child whose body is in the file of its parent.
    fn within(&self, name: &str) -> Self {
        Self {
            of_children: self.of_children.join(name),
            of_file: self.of_file.join(name),
        }
    }

    /// Returns the file of a child, and its folders.
    fn child(&self, name: &str) -> (PathBuf, Self) {
        let of_children = self.of_children.join(name);
        let file = of_children.with_extension("rs");
        if file.exists() {
            let of_file = self.of_children.clone();
            return (
                file,
                Self {
                    of_children,
                    of_file,
                },
            );
        }
        let file = of_children.join("mod.rs");
        let folders = Self::of_root(&file);
        (file, folders)
    }
}

/// Returns the cycles: sets of modules each of which uses every other, directly or indirectly.
pub fn circles(siblings: &Siblings) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = siblings
        .keys()
        .map(|from| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
            while let Some(module) = left.pop() {
                let used = siblings.get(module).into_iter().flatten();
                left.extend(used.filter(|used| seen.insert(*used)));
            }
            (from, seen)
        })
        .collect();
    let both = |a: &String, b: &String| reached[a].contains(b) && reached[b].contains(a);
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for module in siblings.keys().filter(|module| both(module, module)) {
        if !circles.iter().any(|circle| circle.contains(module)) {
            let circle = siblings.keys().filter(|other| both(module, other));
            circles.push(circle.cloned().collect());
        }
    }
    circles
}
