//! Figures that others keep: read when metrics are asked for. Owns their form only.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// Whether a figure only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// It only grows. Its name ends with `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A figure that is read when metrics are asked for.
pub struct Source {
    /// Whether it only grows.
    pub kind: SourceKind,
    /// Its name, without `roomcast_`.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub help: &'static str,
    /// Labels with their values, from closed sets. Sources of one name differ in the values only.
    pub labels: &'static [(&'static str, &'static str)],
    /// Reads it. Must not block.
    pub read: Box<dyn Fn() -> f64 + Send + Sync>,
}

pub(super) struct SourceCollector {
    source: Source,
    desc: Desc,
}

impl SourceCollector {
    pub(super) fn new(source: Source) -> prometheus::Result<Self> {
        let label = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels: HashMap<_, _> = source.labels.iter().map(label).collect();
        let opts = super::opts(source.name, source.help);
        let desc = Desc::new(opts.fq_name(), source.help.to_owned(), Vec::new(), labels)?;
        Ok(Self { source, desc })
    }
}

impl Collector for SourceCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let value = (self.source.read)();
        let mut metric = proto::Metric::from_label(self.desc.const_label_pairs.clone());
        let mut family = proto::MetricFamily::default();
        match self.source.kind {
            SourceKind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
                family.set_field_type(proto::MetricType::COUNTER);
            }
            SourceKind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
                family.set_field_type(proto::MetricType::GAUGE);
            }
        }
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_metric(vec![metric]);
        vec![family]
    }
}
