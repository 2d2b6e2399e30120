//! The GPUs of this machine, as the driver's NVML tells when it is asked. Its library is opened at run time: none, no metrics.

use std::fmt::Write;
use std::sync::OnceLock;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::{Device, Nvml};
use sluicegate_core::metric;

use super::process::head;

/// What NVML says of one GPU. What it does not say is left out.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gpu {
    /// It stays the same whatever `CUDA_VISIBLE_DEVICES` hides, where numbers do not.
    uuid: String,
    name: String,
    used_bytes: Option<u64>,
    total_bytes: Option<u64>,
    utilization: Option<f64>,
    celsius: Option<f64>,
    watts: Option<f64>,
}

impl Gpu {
    fn read(device: &Device<'_>) -> Option<Self> {
        let memory = device.memory_info().ok();
        Some(Self {
            uuid: device.uuid().ok()?,
            name: device.name().unwrap_or_default(),
            used_bytes: memory.as_ref().map(|memory| memory.used),
            total_bytes: memory.map(|memory| memory.total),
            utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
            celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        })
    }
}

/// How a family's value is taken.
type Value<'a> = &'a dyn Fn(&Gpu) -> Option<f64>;

/// Adds the metrics of the GPUs to a page, where there are any.
pub(super) fn render(page: &mut String) {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    let Some(nvml) = NVML.get_or_init(|| Nvml::init().ok()) else { return };
    let gpus = (0..nvml.device_count().unwrap_or(0)).filter_map(|place| Gpu::read(&nvml.device_by_index(place).ok()?));
    write(page, &gpus.collect::<Vec<_>>());
}

fn write(page: &mut String, gpus: &[Gpu]) {
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    let families: [(&str, Value<'_>); 5] = [
        (metric::GPU_MEMORY_USED, &|gpu| whole(gpu.used_bytes)),
        (metric::GPU_MEMORY, &|gpu| whole(gpu.total_bytes)),
        (metric::GPU_UTILIZATION, &|gpu| gpu.utilization),
        (metric::GPU_TEMPERATURE, &|gpu| gpu.celsius),
        (metric::GPU_POWER, &|gpu| gpu.watts),
    ];
    for (family, value) in families {
        let mut told = gpus.iter().filter_map(|gpu| Some((gpu, value(gpu)?))).peekable();
        if told.peek().is_some() {
            head(page, family);
        }
        for (Gpu { uuid, name, .. }, value) in told {
            let _ = writeln!(page, "{family}{{uuid=\"{}\",name=\"{}\"}} {value}", plain(uuid), plain(name));
        }
    }
}

/// A label's value that needs no escaping.
fn plain(text: &str) -> String {
    text.replace(['"', '\\', '\n'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_does_not_say_is_left_out_and_a_machine_without_any_says_nothing() {
        let one = Gpu { uuid: "GPU-1".into(), name: "H\"100".into(), used_bytes: Some(5), watts: Some(70.5), ..Gpu::default() };
        let mut page = String::new();
        write(&mut page, &[one, Gpu { uuid: "GPU-2".into(), ..Gpu::default() }]);
        let values: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "sluicegate_gpu_memory_used_bytes{uuid=\"GPU-1\",name=\"H100\"} 5",
            "sluicegate_gpu_power_watts{uuid=\"GPU-1\",name=\"H100\"} 70.5",
        ];
        assert_eq!(values, expected);
        page.clear();
        write(&mut page, &[]);
        assert_eq!(page, "");
    }

    #[test]
    fn asking_a_machine_is_harmless_whether_it_has_gpus_or_not() {
        let mut page = String::new();
        render(&mut page);
        assert!(page.lines().all(|line| line.starts_with('#') || line.starts_with("sluicegate_gpu_")), "{page}");
    }
}
