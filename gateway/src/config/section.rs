//! What a section of the configuration is made of.
//!
//! Owns the [`section!`] macro: one declaration gives the struct, its defaults, its serde form, and the list of its
//! keys with their documentation, so that the unknown-key check and the default file cannot drift from the structs.
//! It knows no particular key.

/// One key of the configuration, as the reference shows it.
#[derive(Debug)]
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
    /// A value to show, as TOML, for a key that has no default.
    pub example: Option<&'static str>,
    /// What stands under it.
    pub kind: Kind,
}

/// What stands under a key.
#[derive(Debug)]
pub enum Kind {
    /// A scalar or an array of scalars.
    Value,
    /// A table with these keys.
    Table(&'static [Key]),
    /// An array of tables with these keys.
    List(&'static [Key]),
    /// A table of tables with these keys, each under a name of the user's choice.
    Map(&'static [Key]),
}

/// Declares a section: a struct with a default for each key.
///
/// `field as "name"` gives a key a name in the file that differs from the field's. `tables`, `lists` and `maps` hold
/// sections inside the section.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                $field:ident $(as $wire:literal)? : $type:ty = $default:expr $(; example $example:literal)?,
            )*
        }
        $(tables { $( $table:ident $(as $table_wire:literal)? : $table_type:ty, )* })?
        $(lists { $( $list:ident $(as $list_wire:literal)? : $list_type:ty = $list_default:expr, )* })?
        $(maps { $( $map:ident $(as $map_wire:literal)? : $map_type:ty, )* })?
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $(#[serde(rename = $wire)])?
                pub $field: $type,
            )*
            $($(
                #[doc = concat!("The section `", stringify!($table), "`.")]
                $(#[serde(rename = $table_wire)])?
                pub $table: $table_type,
            )*)?
            $($(
                #[doc = concat!("The list of `", stringify!($list), "`.")]
                $(#[serde(rename = $list_wire)])?
                pub $list: Vec<$list_type>,
            )*)?
            $($(
                #[doc = concat!("The tables of `", stringify!($map), "`, by name.")]
                $(#[serde(rename = $map_wire)])?
                pub $map: std::collections::BTreeMap<String, $map_type>,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    $($( $table: <$table_type>::default(), )*)?
                    $($( $list: $list_default, )*)?
                    $($( $map: std::collections::BTreeMap::new(), )*)?
                }
            }
        }

        impl $name {
            /// The documentation of the section, line by line.
            pub const DOC: &'static [&'static str] = &[$($section_doc),*];

            /// The keys of the section.
            pub const KEYS: &'static [$crate::config::Key] = &[
                $( $crate::config::Key {
                    name: $crate::config::section::name!($field $($wire)?),
                    doc: &[$($doc),*],
                    example: $crate::config::section::example!($($example)?),
                    kind: $crate::config::Kind::Value,
                }, )*
                $($( $crate::config::Key {
                    name: $crate::config::section::name!($table $($table_wire)?),
                    doc: <$table_type>::DOC,
                    example: None,
                    kind: $crate::config::Kind::Table(<$table_type>::KEYS),
                }, )*)?
                $($( $crate::config::Key {
                    name: $crate::config::section::name!($list $($list_wire)?),
                    doc: <$list_type>::DOC,
                    example: None,
                    kind: $crate::config::Kind::List(<$list_type>::KEYS),
                }, )*)?
                $($( $crate::config::Key {
                    name: $crate::config::section::name!($map $($map_wire)?),
                    doc: <$map_type>::DOC,
                    example: None,
                    kind: $crate::config::Kind::Map(<$map_type>::KEYS),
                }, )*)?
            ];
        }
    };
}

macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $wire:literal) => {
        $wire
    };
}

macro_rules! example {
    () => {
        None
    };
    ($example:literal) => {
        Some($example)
    };
}

pub(crate) use {example, name, section};
