//! What a new configuration has otherwise than the one before: all that a reload may touch.
//!
//! Parts are the same if they have the same name. Children are compared by themselves: a connection of which only a
//! child is another has not changed, and neither have its other children. Files that are named, of certificates and keys,
//! are not looked into.

use super::{
    Configuration,
    authority::Authority,
    child::Child,
    connection::Connection,
    pool::Pool,
    secret::{Passphrase, Shared},
};
use std::{collections::HashMap, hash::Hash};

/// What is new, changed and gone, each in the order of its configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes<T> {
    /// There was none of this name.
    pub new: Vec<T>,
    /// There was another: that, and this one.
    pub changed: Vec<(T, T)>,
    /// There is none of this name any more.
    pub gone: Vec<T>,
}

impl<T> Changes<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }
}

/// A child, and the connection it is in. Of a connection that is new or gone all children are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildOf<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The child.
    pub child: &'a Child,
}

/// All that two configurations differ in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diff<'a> {
    /// Connections, whatever their children are.
    pub connections: Changes<&'a Connection>,
    /// Children.
    pub children: Changes<ChildOf<'a>>,
    /// Shared secrets.
    pub shared: Changes<&'a Shared>,
    /// Passphrases.
    pub passphrases: Changes<&'a Passphrase>,
    /// Pools.
    pub pools: Changes<&'a Pool>,
    /// Authorities.
    pub authorities: Changes<&'a Authority>,
}

impl<'a> Diff<'a> {
    /// What leads from one to the other.
    pub fn between(from: &'a Configuration, to: &'a Configuration) -> Diff<'a> {
        Diff {
            connections: changes(
                from.connections.iter(),
                to.connections.iter(),
                |connection| &connection.name,
                |a, b| without_children(a) == without_children(b),
            ),
            children: changes(
                children(from),
                children(to),
                |of| (&of.connection.name, &of.child.name),
                |a, b| a.child == b.child,
            ),
            shared: plain(&from.secrets.shared, &to.secrets.shared, |shared| &shared.name),
            passphrases: plain(&from.secrets.passphrases, &to.secrets.passphrases, |secret| &secret.name),
            pools: plain(&from.pools, &to.pools, |pool| &pool.name),
            authorities: plain(&from.authorities, &to.authorities, |authority| &authority.name),
        }
    }

    /// Whether they differ in nothing.
    pub fn is_empty(&self) -> bool {
        let Diff { connections, children, shared, passphrases, pools, authorities } = self;
        connections.is_empty()
            && children.is_empty()
            && shared.is_empty()
            && passphrases.is_empty()
            && pools.is_empty()
            && authorities.is_empty()
    }
}

fn children(configuration: &Configuration) -> impl Iterator<Item = ChildOf<'_>> {
    let of = |connection| move |child| ChildOf { connection, child };
    configuration
        .connections
        .iter()
        .flat_map(move |connection| connection.children.iter().map(of(connection)))
}

fn without_children(connection: &Connection) -> Connection {
    Connection { children: vec![], ..connection.clone() }
}

fn plain<'a, T: PartialEq>(from: &'a [T], to: &'a [T], name: impl Fn(&'a T) -> &'a String) -> Changes<&'a T> {
    changes(from.iter(), to.iter(), name, |a, b| a == b)
}

fn changes<T: Copy, N: Hash + Eq>(
    from: impl Iterator<Item = T>,
    to: impl Iterator<Item = T>,
    name: impl Fn(T) -> N,
    is_same: impl Fn(T, T) -> bool,
) -> Changes<T> {
    let mut left: HashMap<N, (usize, T)> =
        from.enumerate().map(|(at, before)| (name(before), (at, before))).collect();
    let (mut new, mut changed) = (vec![], vec![]);
    for after in to {
        match left.remove(&name(after)) {
            None => new.push(after),
            Some((_, before)) if is_same(before, after) => {}
            Some((_, before)) => changed.push((before, after)),
        }
    }
    let mut gone: Vec<(usize, T)> = left.into_values().collect();
    gone.sort_unstable_by_key(|(at, _)| *at);
    Changes { new, changed, gone: gone.into_iter().map(|(_, before)| before).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swanctl::tests::parse;

    const BEFORE: &str = "\
        connections {\n\
          a { local_addrs = 192.0.2.1\n local { auth = psk }\n children { x { }\n y { mode = pass } } }\n\
          b { version = 2\n children { x { } } }\n\
          c { children { z { } } }\n\
        }\n\
        secrets { ike-1 { secret = geheim\n id = a }\n ike-2 { secret = b }\n rsa-1 { file = a\n secret = b } }\n\
        pools { p { addrs = 10.3.0.0/24 } }\n\
        authorities { ca { cacert = a } }\n";

    /// The names of what differs, with `+`, `~` and `-`.
    fn names<T: Copy>(changes: &Changes<T>, name: impl Fn(T) -> String) -> String {
        let new = changes.new.iter().map(|new| format!("+{}", name(*new)));
        let changed =
            changes.changed.iter().map(|(before, after)| format!("~{}>{}", name(*before), name(*after)));
        let gone = changes.gone.iter().map(|gone| format!("-{}", name(*gone)));
        new.chain(changed).chain(gone).collect::<Vec<_>>().join(" ")
    }

    fn diff(edits: &[(&str, &str)]) -> String {
        let after = edits.iter().fold(BEFORE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let (from, to) = (parse(BEFORE).unwrap(), parse(&after).unwrap());
        let diff = Diff::between(&from, &to);
        let all = [
            names(&diff.connections, |c| c.name.clone()),
            names(&diff.children, |of| format!("{}.{}", of.connection.name, of.child.name)),
            names(&diff.shared, |s| s.name.clone()),
            names(&diff.passphrases, |s| s.name.clone()),
            names(&diff.pools, |p| p.name.clone()),
            names(&diff.authorities, |a| a.name.clone()),
        ];
        let all: Vec<_> = all.into_iter().filter(|names| !names.is_empty()).collect();
        assert_eq!(diff.is_empty(), all.is_empty());
        all.join("; ")
    }

    #[test]
    fn what_did_not_change_is_not_touched() {
        assert_eq!(diff(&[]), "");
        // Written otherwise, it means the same.
        assert_eq!(diff(&[("local_addrs = 192.0.2.1", "local_addrs =   192.0.2.1,\n mobike = true")]), "");
        assert_eq!(diff(&[("local {", "local-1 {"), ("secret = geheim", "secret = 0x67656865696d")]), "");
        assert_eq!(diff(&[("b { version = 2", "b { children { x { rekey_time = 60m } }\n version = 2")]), "");
    }

    #[test]
    fn each_change_is_of_its_part_alone() {
        assert_eq!(diff(&[("192.0.2.1", "192.0.2.2")]), "~a>a");
        assert_eq!(diff(&[("mode = pass", "mode = drop")]), "~a.y>a.y");
        assert_eq!(diff(&[("c { children", "d { children")]), "+d -c; +d.z -c.z");
        assert_eq!(diff(&[("y { mode = pass }", "w { }")]), "+a.w -a.y");
        assert_eq!(diff(&[("geheim", "anders")]), "~ike-1>ike-1");
        assert_eq!(diff(&[("ike-2", "eap-2")]), "+eap-2 -ike-2");
        assert_eq!(diff(&[("file = a", "file = b")]), "~rsa-1>rsa-1");
        assert_eq!(diff(&[("10.3.0.0/24", "10.3.0.0/25"), ("cacert = a", "cacert = b")]), "~p>p; ~ca>ca");
    }
}
