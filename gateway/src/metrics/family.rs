//! One metric with a closed set of label values. Owns the handles: they are made once, so that counting is an index and
//! an atomic addition.

use std::marker::PhantomData;

use prometheus::core::{AtomicI64, AtomicU64, GenericCounter, GenericGauge};
use prometheus::{IntCounter, IntGauge, Opts, Registry};

use super::labels::Label;

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Counters<L> {
    handles: Box<[GenericCounter<AtomicU64>]>,
    label: PhantomData<fn(L)>,
}

/// A gauge for each value of a label.
#[derive(Debug)]
pub struct Gauges<L> {
    handles: Box<[GenericGauge<AtomicI64>]>,
    label: PhantomData<fn(L)>,
}

fn opts<L: Label>(name: &str, help: &str, value: L) -> Opts {
    super::opts(name, help).const_label(L::NAME, value.as_str())
}

impl<L: Label> Counters<L> {
    pub(crate) fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let make = |value: &L| {
            let counter = IntCounter::with_opts(opts(name, help, *value)).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("a name of its own");
            counter
        };
        Self { handles: L::ALL.iter().map(make).collect(), label: PhantomData }
    }

    /// The counter of a value.
    pub fn of(&self, value: L) -> &IntCounter {
        &self.handles[value.index()]
    }

    /// Counts one.
    pub fn inc(&self, value: L) {
        self.of(value).inc();
    }

    /// The sum over all values.
    pub fn total(&self) -> u64 {
        self.handles.iter().map(GenericCounter::get).sum()
    }
}

impl<L: Label> Gauges<L> {
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let make = |value: &L| {
            let gauge = IntGauge::with_opts(opts(name, help, *value)).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("a name of its own");
            gauge
        };
        Self { handles: L::ALL.iter().map(make).collect(), label: PhantomData }
    }

    /// The gauge of a value.
    pub fn of(&self, value: L) -> &IntGauge {
        &self.handles[value.index()]
    }

    /// The sum over all values.
    pub fn total(&self) -> i64 {
        self.handles.iter().map(GenericGauge::get).sum()
    }
}
