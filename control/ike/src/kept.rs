//! What is kept of an IKE SA as octets, so that another process can go on with it.
//!
//! Numbers are big-endian, lists have their number in front. A struct is its fields in order (`keep!`): whoever adds one is
//! asked by the compiler what becomes of it. There is no way from one layout to another: [`VERSION`] counts them, and what has
//! another is not read.
//!
//! # Dangers
//! - There are keys in these octets. They are wiped when they are dropped, and are for nobody's eyes: whoever writes them
//!   somewhere seals them.
//! - What is made again seals with the next IV, and asks with the next message ID (RFC 5282 §3.1, RFC 7296 §2.2). So what is kept
//!   must not be older than the last message that was sent: it is written before what came of a change is done.

use crate::{
    connection::{Child, Connection},
    message::Identification,
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Counted up whenever anything that is kept has another layout.
pub const VERSION: u32 = 4;

/// Octets that are no IKE SA of this version: this field is cut off, or has a value that it cannot have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what was kept of an IKE SA has a bad {0}")]
pub struct Damaged(pub &'static str);

/// Octets that are written.
#[derive(Debug)]
pub(crate) struct Writer(Zeroizing<Vec<u8>>);

/// Octets of most IKE SAs, with some to spare.
const ROOM: usize = 2048;

impl Writer {
    pub fn new() -> Writer {
        Writer(Zeroizing::new(Vec::with_capacity(ROOM)))
    }

    pub fn octets(&mut self, octets: &[u8]) {
        let len = self.0.len() + octets.len();
        if len > self.0.capacity() {
            // What is left behind is wiped.
            let mut more = Zeroizing::new(Vec::with_capacity(2 * len));
            more.extend_from_slice(&self.0);
            self.0 = more;
        }
        self.0.extend_from_slice(octets);
    }

    pub fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// Octets that are read, and the configurations that they name.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    connection: &'a dyn Fn(u64) -> Option<Arc<Connection>>,
}

impl<'a> Reader<'a> {
    pub fn new(octets: &'a [u8], connection: &'a dyn Fn(u64) -> Option<Arc<Connection>>) -> Reader<'a> {
        Reader { rest: octets, connection }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Damaged("length"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), Damaged> {
        if self.rest.is_empty() { Ok(()) } else { Err(Damaged("end")) }
    }
}

/// What can be kept.
pub(crate) trait Keep: Sized {
    /// Writes it.
    fn keep(&self, to: &mut Writer);

    /// Makes it again.
    fn kept(from: &mut Reader<'_>) -> Result<Self, Damaged>;

    /// Several in a row.
    fn keep_all(all: &[Self], to: &mut Writer) {
        all.iter().for_each(|one| one.keep(to));
    }

    /// As many.
    fn all_kept(count: usize, from: &mut Reader<'_>) -> Result<Vec<Self>, Damaged> {
        // A count that is wrong ends with the octets, and makes no room before.
        (0..count).map(|_| Self::kept(from)).collect()
    }
}

/// Has a struct kept by its fields, all of them, or by what it is around.
macro_rules! keep {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::kept::Keep for $name {
            fn keep(&self, to: &mut $crate::kept::Writer) {
                let $name { $($field),+ } = self;
                $($crate::kept::Keep::keep($field, to);)+
            }

            fn kept(from: &mut $crate::kept::Reader<'_>) -> Result<$name, $crate::kept::Damaged> {
                Ok($name { $($field: $crate::kept::Keep::kept(from)?),+ })
            }
        }
    };
    ($($name:ident(_)),+ $(,)?) => {
        $(impl $crate::kept::Keep for $name {
            fn keep(&self, to: &mut $crate::kept::Writer) {
                $crate::kept::Keep::keep(&self.0, to);
            }

            fn kept(from: &mut $crate::kept::Reader<'_>) -> Result<$name, $crate::kept::Damaged> {
                Ok($name($crate::kept::Keep::kept(from)?))
            }
        })+
    };
}

/// Has an enumeration kept: a number for each variant, and what is in it.
macro_rules! keep_enum {
    ($name:ident { $($number:literal => $variant:ident $(($($field:ident),+))?),+ $(,)? }) => {
        impl $crate::kept::Keep for $name {
            fn keep(&self, to: &mut $crate::kept::Writer) {
                match self {
                    $($name::$variant $(($($field),+))? => {
                        to.octets(&[$number]);
                        $($($crate::kept::Keep::keep($field, to);)+)?
                    })+
                }
            }

            fn kept(from: &mut $crate::kept::Reader<'_>) -> Result<$name, $crate::kept::Damaged> {
                match <u8 as $crate::kept::Keep>::kept(from)? {
                    $($number => {
                        $($(let $field = $crate::kept::Keep::kept(from)?;)+)?
                        Ok($name::$variant $(($($field),+))?)
                    })+
                    _ => Err($crate::kept::Damaged(stringify!($name))),
                }
            }
        }
    };
}

pub(crate) use {keep, keep_enum};

impl Keep for u8 {
    fn keep(&self, to: &mut Writer) {
        to.octets(&[*self]);
    }

    fn kept(from: &mut Reader<'_>) -> Result<u8, Damaged> {
        Ok(from.take(1)?[0])
    }

    fn keep_all(all: &[u8], to: &mut Writer) {
        to.octets(all);
    }

    fn all_kept(count: usize, from: &mut Reader<'_>) -> Result<Vec<u8>, Damaged> {
        Ok(from.take(count)?.to_vec())
    }
}

macro_rules! numbers {
    ($($number:ident)+) => {
        $(impl Keep for $number {
            fn keep(&self, to: &mut Writer) {
                to.octets(&self.to_be_bytes());
            }

            fn kept(from: &mut Reader<'_>) -> Result<$number, Damaged> {
                Ok($number::from_be_bytes(<[u8; size_of::<$number>()]>::kept(from)?))
            }
        })+
    };
}

numbers! { u16 u32 u64 u128 }

impl Keep for usize {
    fn keep(&self, to: &mut Writer) {
        (*self as u64).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<usize, Damaged> {
        usize::try_from(u64::kept(from)?).map_err(|_| Damaged("number"))
    }
}

impl Keep for bool {
    fn keep(&self, to: &mut Writer) {
        u8::from(*self).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<bool, Damaged> {
        match u8::kept(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged("truth value")),
        }
    }
}

impl<const N: usize> Keep for [u8; N] {
    fn keep(&self, to: &mut Writer) {
        to.octets(self);
    }

    fn kept(from: &mut Reader<'_>) -> Result<[u8; N], Damaged> {
        from.take(N)?.try_into().map_err(|_| Damaged("length"))
    }
}

impl<T: Keep> Keep for Vec<T> {
    fn keep(&self, to: &mut Writer) {
        (self.len() as u32).keep(to);
        T::keep_all(self, to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Vec<T>, Damaged> {
        let count = u32::kept(from)?;
        T::all_kept(count as usize, from)
    }
}

macro_rules! pairs {
    ($($one:ty),+) => {
        $(impl Keep for [$one; 2] {
            fn keep(&self, to: &mut Writer) {
                Keep::keep_all(self, to);
            }

            fn kept(from: &mut Reader<'_>) -> Result<[$one; 2], Damaged> {
                Ok([Keep::kept(from)?, Keep::kept(from)?])
            }
        })+
    };
}

pairs! { Vec<u8>, Identification }

impl<T: Keep> Keep for VecDeque<T> {
    fn keep(&self, to: &mut Writer) {
        (self.len() as u32).keep(to);
        self.iter().for_each(|one| one.keep(to));
    }

    fn kept(from: &mut Reader<'_>) -> Result<VecDeque<T>, Damaged> {
        Vec::kept(from).map(VecDeque::from)
    }
}

impl<T: Keep> Keep for Option<T> {
    fn keep(&self, to: &mut Writer) {
        self.is_some().keep(to);
        self.iter().for_each(|one| one.keep(to));
    }

    fn kept(from: &mut Reader<'_>) -> Result<Option<T>, Damaged> {
        if bool::kept(from)? { T::kept(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Keep> Keep for Box<T> {
    fn keep(&self, to: &mut Writer) {
        T::keep(self, to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Box<T>, Damaged> {
        T::kept(from).map(Box::new)
    }
}

impl<A: Keep, B: Keep> Keep for (A, B) {
    fn keep(&self, to: &mut Writer) {
        self.0.keep(to);
        self.1.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<(A, B), Damaged> {
        Ok((A::kept(from)?, B::kept(from)?))
    }
}

impl Keep for String {
    fn keep(&self, to: &mut Writer) {
        (self.len() as u32).keep(to);
        to.octets(self.as_bytes());
    }

    fn kept(from: &mut Reader<'_>) -> Result<String, Damaged> {
        String::from_utf8(Vec::kept(from)?).map_err(|_| Damaged("text"))
    }
}

impl Keep for IpAddr {
    fn keep(&self, to: &mut Writer) {
        match self {
            IpAddr::V4(ip) => (4u8, ip.octets()).keep(to),
            IpAddr::V6(ip) => (6u8, ip.octets()).keep(to),
        }
    }

    fn kept(from: &mut Reader<'_>) -> Result<IpAddr, Damaged> {
        match u8::kept(from)? {
            4 => <[u8; 4]>::kept(from).map(IpAddr::from),
            6 => <[u8; 16]>::kept(from).map(IpAddr::from),
            _ => Err(Damaged("address")),
        }
    }
}

impl Keep for SocketAddr {
    fn keep(&self, to: &mut Writer) {
        (self.ip(), self.port()).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<SocketAddr, Damaged> {
        <(IpAddr, u16)>::kept(from).map(SocketAddr::from)
    }
}

/// By its mark.
impl Keep for Arc<Connection> {
    fn keep(&self, to: &mut Writer) {
        self.mark.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Arc<Connection>, Damaged> {
        let mark = u64::kept(from)?;
        (from.connection)(mark).ok_or(Damaged("connection"))
    }
}

/// By the mark of its connection, and its name.
impl Keep for Arc<Child> {
    fn keep(&self, to: &mut Writer) {
        self.mark.keep(to);
        self.name.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Arc<Child>, Damaged> {
        let (connection, name) = <(Arc<Connection>, String)>::kept(from)?;
        let child = connection.children.iter().find(|child| child.name == name);
        child.cloned().ok_or(Damaged("child"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_octet_of_what_is_wiped() {
        // In hexadecimal it has no letters either.
        let wiped = Zeroizing::new(vec![0x99; 20]);
        let mut writer = Writer::new();
        writer.octets(&wiped);
        for printed in [format!("{wiped:?} {writer:?}"), format!("{wiped:#x?} {writer:#x?}")] {
            assert!(!printed.contains(|c: char| c.is_ascii_digit()), "{printed}");
        }
    }
}
