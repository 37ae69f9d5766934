//! Figures, the bounds that they have, and how both are printed.

use std::process::ExitCode;

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    at_most: Option<f64>,
}

impl Figure {
    fn holds(&self) -> bool {
        self.at_most.is_none_or(|bound| self.value <= bound)
    }
}

/// What was measured, in order.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit, at_most: None });
    }

    /// A figure that must not exceed a bound.
    pub(super) fn bounded(&mut self, name: impl Into<String>, value: f64, unit: &'static str, at_most: f64) {
        self.figures.push(Figure { name: name.into(), value, unit, at_most: Some(at_most) });
    }

    /// What a reader must know, such as why a figure is missing.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// All figures.
    pub(super) fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.figures.iter().map(|figure| (&*figure.name, figure.value))
    }

    /// Those that exceed their bound.
    pub(super) fn broken(&self) -> impl Iterator<Item = &str> {
        self.figures.iter().filter(|figure| !figure.holds()).map(|figure| &*figure.name)
    }

    /// Prints everything; the status says whether the bounds hold.
    pub(crate) fn print(&self, json: bool) -> ExitCode {
        if json {
            println!("{}", self.to_json());
        } else {
            self.print_text();
        }
        if self.broken().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let figure = |figure: &Figure| {
            let object = serde_json::json!({
                "value": figure.value, "unit": figure.unit, "at_most": figure.at_most, "holds": figure.holds(),
            });
            (figure.name.clone(), object)
        };
        let figures: serde_json::Map<_, _> = self.figures.iter().map(figure).collect();
        serde_json::json!({ "figures": figures, "notes": self.notes })
    }

    fn print_text(&self) {
        for figure in &self.figures {
            let bound = match (figure.at_most, figure.holds()) {
                (None, _) => String::new(),
                (Some(bound), true) => format!("  (at most {bound})"),
                (Some(bound), false) => format!("  FAILED: at most {bound}"),
            };
            let value = format!("{:.3}", figure.value);
            let value = value.trim_end_matches('0').trim_end_matches('.');
            println!("{:<36} {:>14} {}{bound}", figure.name, value, figure.unit);
        }
        for note in &self.notes {
            println!("note: {note}");
        }
    }
}
