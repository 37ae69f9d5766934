//! One suite that every adapter passes.
//!
//! Owns what an adapter promises, as tests that know no adapter. [`conformance_suite!`](crate::conformance_suite) makes
//! them for one adapter, over any number of nodes. Nothing sleeps to wait for something: what must not arrive is told
//! from a fence that is emitted after it.
#![allow(clippy::unwrap_used, reason = "a test that fails by `unwrap` says where")]

pub mod acks;
pub mod broadcast;
pub mod cluster;
pub mod hosts;
pub mod once;
pub mod operations;
pub mod order;
mod socket;

pub use cluster::{Events, TestCluster};
pub use socket::{Received, TestSocket};

/// Makes the tests of one adapter: a module with one test per property.
///
/// The second argument names an async function without arguments that makes a
/// [`TestCluster`](crate::conformance::TestCluster) of nodes that know each other and are ready. It is called for each
/// test, from the scope of the macro.
#[macro_export]
macro_rules! conformance_suite {
    ($module:ident, $make:ident) => {
        $crate::conformance_cases! { $module, $make,
            broadcast: {
                everybody_gets_a_broadcast_once,
                a_socket_in_several_rooms_gets_one_copy,
                many_rooms_at_once,
                members_of_excepted_rooms_are_left_out,
                excepted_sockets_are_left_out,
                a_local_broadcast_stays_on_its_node,
                what_is_volatile_is_dropped_when_it_cannot_be_written,
                an_emit_to_the_id_of_a_socket_reaches_it,
                a_room_named_like_a_socket_reaches_the_socket_and_who_joined,
                rooms_have_any_name,
                namespaces_are_kept_apart,
                binary_arrives_byte_for_byte,
                big_packets_arrive,
                a_socket_that_left_gets_nothing,
                a_confirmed_broadcast_arrives,
            }
            order: {
                emits_of_a_node_to_a_room_arrive_in_order,
                emits_of_a_node_to_rooms_in_turn_arrive_in_the_order_of_each,
                what_is_emitted_after_a_confirmed_join_arrives,
                what_is_emitted_after_sockets_join_arrives,
            }
            acks: {
                one_socket_acks,
                sockets_of_all_nodes_ack,
                nobody_to_ask_ends_at_once,
                those_who_do_not_ack_in_time_are_named,
                a_socket_that_leaves_is_not_waited_for,
                a_socket_owes_its_acks_until_nobody_waits_for_them,
                an_ack_counts_once_and_only_from_those_asked,
                binary_and_big_acks_arrive,
            }
            operations: {
                sockets_are_fetched_with_what_they_say,
                sockets_are_counted,
                rooms_are_counted,
                rooms_are_listed_by_pages,
                sockets_of_a_room_come_in_pages,
                sockets_join_and_leave_by_selector,
                sockets_are_disconnected_by_selector,
                servers_hear_each_other,
                servers_answer_each_other,
                rooms_of_a_socket,
                a_node_that_left_is_not_waited_for,
                nodes_tell_each_other_where_they_are_reached,
            }
            once: {
                a_call_is_carried_out_once,
                a_call_that_failed_is_carried_out_by_the_next,
                what_was_carried_out_outlives_a_node,
            }
            hosts: {
                processes_are_known,
                a_process_is_told_to_drain,
            }
        }
    };
}

/// Makes the tests of what adapters promise whose bus has one stream: order also between emits to different rooms.
///
/// For all but those that spread rooms over several servers. Arguments are those of
/// [`conformance_suite!`](crate::conformance_suite).
#[macro_export]
macro_rules! conformance_of_one_stream {
    ($module:ident, $make:ident) => {
        $crate::conformance_cases! { $module, $make,
            order: {
                emits_of_a_node_to_several_rooms_and_all_arrive_in_order,
            }
            operations: {
                sockets_are_disconnected_behind_what_was_emitted_before,
            }
        }
    };
}

/// Makes one test per case. Not for direct use.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($module:ident, $make:ident, $($part:ident: { $($case:ident,)* })*) => {
        mod $module {
            use super::*;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cluster = $make().await;
                    $crate::conformance::$part::$case(&cluster).await;
                    cluster.shutdown().await;
                }
            )*)*
        }
    };
}
