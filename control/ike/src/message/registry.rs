//! Numbers of IANA's registries: a number, whether it is known or not, with names for those that are.

/// A type for the numbers of a registry, with the registry's names as constants; it prints as the name, or as the
/// number where it has none.
macro_rules! registry {
    ($(#[doc = $doc:literal])+ $name:ident($int:ty) { $($constant:ident = $number:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(
            /// The number.
            pub $int,
        );

        #[allow(missing_docs, reason = "the names are the registry's")]
        impl $name {
            $(pub const $constant: $name = $name($number);)+

            /// Its name, if it is a known one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($constant)),)+
                    _ => None,
                }
            }
        }

        impl From<$int> for $name {
            fn from(number: $int) -> $name {
                $name(number)
            }
        }

        impl From<$name> for $int {
            fn from(named: $name) -> $int {
                named.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

pub(super) use registry;
