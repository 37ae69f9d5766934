//! How many nodes and which brokers a number of connections needs: a model from measured constants.
//!
//! [`counts`] is what nodes say to each other, held to the simulated cluster; [`constants`] what each thing costs, from
//! `docs/operations/scaling.toml`. [`node`] and [`broker`] multiply the two, [`plan`] looks for what is enough, and [`page`]
//! writes the tables of `docs/operations/scaling.md`. No clock, no I/O but that of [`page::update`] and [`constants::read`].

pub mod broker;
pub mod constants;
pub mod counts;
pub mod node;
pub mod page;
pub mod plan;
pub mod text;
pub mod workload;
