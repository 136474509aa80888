//! Readings of a cgroup in the words of the summary.

use super::super::model::{Interface, Limit, Network, Pressure, Reading, Stall};
use super::{
    CpuStats, InterfaceStats, IoStats, MemoryStats, NetworkStats, PsiData, PsiStats, SwapStats,
    Time,
};

pub(super) fn cpu(reading: &Reading) -> CpuStats {
    CpuStats {
        time: Time(reading.at),
        usage_nano_cores: reading.cpu.nano_cores,
        usage_core_nano_seconds: u64::try_from(reading.cpu.total.as_nanos()).unwrap_or(u64::MAX),
        psi: reading.pressure.cpu.map(psi),
    }
}

pub(super) fn memory(reading: &Reading) -> Option<MemoryStats> {
    let memory = reading.memory?;
    let limit = memory.limit.and_then(Limit::bound);
    Some(MemoryStats {
        time: Time(reading.at),
        available_bytes: limit.map(|limit| limit.saturating_sub(memory.working_set)),
        usage_bytes: memory.usage,
        working_set_bytes: memory.working_set,
        rss_bytes: memory.rss,
        page_faults: memory.faults.all,
        major_page_faults: memory.faults.major,
        psi: reading.pressure.memory.map(psi),
    })
}

pub(super) fn io(reading: &Reading) -> Option<IoStats> {
    Some(IoStats {
        time: Time(reading.at),
        psi: psi(reading.pressure.io?),
    })
}

pub(super) fn swap(reading: &Reading) -> Option<SwapStats> {
    let swap = reading.swap?;
    let limit = swap.limit.and_then(Limit::bound);
    Some(SwapStats {
        time: Time(reading.at),
        swap_available_bytes: limit.map(|limit| limit.saturating_sub(swap.usage)),
        swap_usage_bytes: swap.usage,
    })
}

fn psi(pressure: Pressure) -> PsiStats {
    let data = |stall: Stall| PsiData {
        total: stall.total,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    PsiStats {
        full: data(pressure.full),
        some: data(pressure.some),
    }
}

pub(super) fn network(network: &Network, primary: Option<&str>) -> NetworkStats {
    let interfaces: Vec<InterfaceStats> = network.interfaces.iter().map(interface).collect();
    let is_primary = |interface: &&InterfaceStats| Some(interface.name.as_str()) == primary;
    NetworkStats {
        time: Time(network.at),
        primary: interfaces.iter().find(is_primary).cloned(),
        interfaces,
    }
}

fn interface(interface: &Interface) -> InterfaceStats {
    InterfaceStats {
        name: interface.name.clone(),
        rx_bytes: interface.received.bytes,
        rx_errors: interface.received.errors,
        tx_bytes: interface.sent.bytes,
        tx_errors: interface.sent.errors,
    }
}
