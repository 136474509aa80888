//! The eviction section: signals, thresholds and grace periods out of maps of text.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::cli::NodeFlags;
use super::super::duration::GoDuration;
use super::super::raw::{KubeletConfiguration, TextMap};
use super::super::schema::Setting;
use super::super::sections::{EvictionConfig, EvictionSignal, SoftThreshold, ThresholdValue};
use super::Problems;
use crate::pod::quantity::Quantity;

/// Signals by the names they have in configuration.
const SIGNALS: [(&str, EvictionSignal); 9] = [
    ("memory.available", EvictionSignal::MemoryAvailable),
    (
        "allocatableMemory.available",
        EvictionSignal::AllocatableMemoryAvailable,
    ),
    ("nodefs.available", EvictionSignal::NodeFsAvailable),
    ("nodefs.inodesFree", EvictionSignal::NodeFsInodesFree),
    ("imagefs.available", EvictionSignal::ImageFsAvailable),
    ("imagefs.inodesFree", EvictionSignal::ImageFsInodesFree),
    (
        "containerfs.available",
        EvictionSignal::ContainerFsAvailable,
    ),
    (
        "containerfs.inodesFree",
        EvictionSignal::ContainerFsInodesFree,
    ),
    ("pid.available", EvictionSignal::PidAvailable),
];

pub(super) fn eviction(
    raw: &KubeletConfiguration,
    flags: &NodeFlags,
    problems: &mut Problems,
) -> EvictionConfig {
    EvictionConfig {
        hard: thresholds(&raw.eviction_hard, problems),
        soft: soft_thresholds(raw, problems),
        minimum_reclaim: minimum_reclaim(&raw.eviction_minimum_reclaim, problems),
        pressure_transition_period: problems.period(&raw.eviction_pressure_transition_period),
        max_pod_grace_period: u64::try_from(raw.eviction_max_pod_grace_period.get())
            .ok()
            .map(Duration::from_secs),
        ignored_in_allocatable: flags
            .experimental_allocatable_ignore_eviction
            .unwrap_or(false),
    }
}

/// The entries of a map whose keys are signals.
fn by_signal(
    map: &Setting<TextMap>,
    problems: &mut Problems,
) -> Vec<(EvictionSignal, Setting<String>)> {
    let mut known = Vec::new();
    for (name, entry) in map.get() {
        match SIGNALS.iter().find(|(signal, _)| *signal == name) {
            Some((_, signal)) => known.push((*signal, entry)),
            None => problems.add(entry.invalid(format!("{name:?} is not an eviction signal"))),
        }
    }
    known
}

/// What a threshold may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// More than nothing.
    Threshold,
    /// Nothing or more.
    Reclaim,
}

fn thresholds(
    map: &Setting<TextMap>,
    problems: &mut Problems,
) -> BTreeMap<EvictionSignal, ThresholdValue> {
    by_signal(map, problems)
        .into_iter()
        // Two ways to say that there is no threshold.
        .filter(|(_, entry)| !["0%", "100%"].contains(&entry.get().as_str()))
        .filter_map(|(signal, entry)| {
            let value = parse(&entry.get(), Bound::Threshold);
            Some((signal, reported(value, &entry, problems)?))
        })
        .collect()
}

fn minimum_reclaim(
    map: &Setting<TextMap>,
    problems: &mut Problems,
) -> BTreeMap<EvictionSignal, ThresholdValue> {
    by_signal(map, problems)
        .into_iter()
        .filter_map(|(signal, entry)| {
            let value = parse(&entry.get(), Bound::Reclaim);
            Some((signal, reported(value, &entry, problems)?))
        })
        .collect()
}

/// The value of an entry, or `None` after noting why it has none.
fn reported<T>(
    value: Result<T, String>,
    entry: &Setting<String>,
    problems: &mut Problems,
) -> Option<T> {
    value.map_err(|why| problems.add(entry.invalid(why))).ok()
}

fn parse(given: &str, bound: Bound) -> Result<ThresholdValue, String> {
    if let Some(percent) = given.strip_suffix('%') {
        let percent: f64 = percent
            .parse()
            .map_err(|_| format!("{given:?} is not a percentage"))?;
        if !(0.0..=100.0).contains(&percent) || (bound == Bound::Reclaim && percent == 0.0) {
            return Err(format!("{given:?} is not between 0% and 100%"));
        }
        return Ok(ThresholdValue::Percent(percent));
    }
    let quantity = Quantity::parse(given)
        .map_err(|_| format!("{given:?} is neither a quantity nor a percentage"))?;
    if quantity.is_negative() || (bound == Bound::Threshold && quantity.is_zero()) {
        return Err(format!("{given:?} is not positive"));
    }
    Ok(ThresholdValue::Quantity(given.to_owned()))
}

fn soft_thresholds(
    raw: &KubeletConfiguration,
    problems: &mut Problems,
) -> BTreeMap<EvictionSignal, SoftThreshold> {
    let grace_periods = grace_periods(&raw.eviction_soft_grace_period, problems);
    for (signal, entry) in by_signal(&raw.eviction_soft, &mut Problems::default()) {
        if !grace_periods.contains_key(&signal) {
            problems.add(entry.invalid("needs a period in evictionSoftGracePeriod"));
        }
    }
    thresholds(&raw.eviction_soft, problems)
        .into_iter()
        .filter_map(|(signal, value)| {
            let grace_period = *grace_periods.get(&signal)?;
            Some((
                signal,
                SoftThreshold {
                    value,
                    grace_period,
                },
            ))
        })
        .collect()
}

fn grace_periods(
    map: &Setting<TextMap>,
    problems: &mut Problems,
) -> BTreeMap<EvictionSignal, Duration> {
    by_signal(map, problems)
        .into_iter()
        .filter_map(|(signal, entry)| {
            let period = entry
                .get()
                .parse::<GoDuration>()
                .map_err(|error| error.to_string())
                .and_then(|period| match period.is_negative() {
                    true => Err("must not be negative".to_owned()),
                    false => Ok(period.to_std()),
                });
            Some((signal, reported(period, &entry, problems)?))
        })
        .collect()
}
