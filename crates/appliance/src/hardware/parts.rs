//! Processors, memory, fans and power supplies.

use std::fs;

use super::{Hardware, MOST, names, number, text};

/// A processor: a package, with its cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// The number of the package.
    pub number: u32,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Threads that it runs at once.
    pub threads: u32,
    /// Its cores, where it says.
    pub cores: Option<u32>,
}

/// A module of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryModule {
    /// Its place.
    pub label: String,
    /// Its bytes.
    pub bytes: u64,
}

/// A fan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fan {
    /// Its name.
    pub name: String,
    /// Turns in a minute.
    pub speed: Option<u64>,
}

/// A power supply or battery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Battery {
    /// Its name.
    pub name: String,
    /// What it is: `Mains`, `Battery`, `UPS` and the like.
    pub kind: Option<String>,
    /// Whether it gives power.
    pub online: Option<bool>,
}

impl Hardware {
    /// The processors.
    pub fn processors(&self) -> Vec<Processor> {
        let text = fs::read_to_string(self.path("proc/cpuinfo")).unwrap_or_default();
        processors(&text)
    }

    /// The modules of memory, where the memory controller tells of them.
    pub fn memory_modules(&self) -> Vec<MemoryModule> {
        let class = self.path("sys/devices/system/edac/mc");
        let mut all = Vec::new();
        for controller in names(&class).unwrap_or_default() {
            for name in names(&class.join(&controller)).unwrap_or_default() {
                let dir = class.join(&controller).join(&name);
                let (true, Some(size)) = (name.starts_with("dimm"), number(&dir.join("size")))
                else {
                    continue;
                };
                let label = text(&dir.join("dimm_label")).unwrap_or(format!("{controller} {name}"));
                // In MiB.
                let bytes = size.saturating_mul(1 << 20);
                all.push(MemoryModule { label, bytes });
            }
        }
        all.truncate(MOST);
        all
    }

    /// The fans that sensors tell of.
    pub fn fans(&self) -> Vec<Fan> {
        let class = self.path("sys/class/hwmon");
        let mut all = Vec::new();
        for sensor in names(&class).unwrap_or_default() {
            let dir = class.join(&sensor);
            for file in names(&dir).unwrap_or_default() {
                let Some(fan) = file.strip_suffix("_input").filter(|name| name.starts_with("fan"))
                else {
                    continue;
                };
                let chip = text(&dir.join("name")).unwrap_or_else(|| sensor.clone());
                let label = text(&dir.join(format!("{fan}_label"))).unwrap_or_else(|| fan.into());
                let speed = number(&dir.join(&file));
                all.push(Fan { name: format!("{chip} {label}"), speed });
            }
        }
        all.truncate(MOST);
        all
    }

    /// Power supplies and batteries.
    pub fn power(&self) -> Vec<Battery> {
        let class = self.path("sys/class/power_supply");
        let one = |name: String| {
            let dir = class.join(&name);
            let online = number(&dir.join("online")).map(|flag| flag != 0);
            Battery { kind: text(&dir.join("type")), online, name }
        };
        names(&class).unwrap_or_default().into_iter().map(one).collect()
    }
}

/// What `/proc/cpuinfo` says; where packages are not numbered there is one.
fn processors(text: &str) -> Vec<Processor> {
    let mut all: Vec<Processor> = Vec::new();
    for block in text.split("\n\n").filter(|block| block.contains("processor")).take(MOST) {
        let field = |name: &str| {
            block.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        let whole = |name: &str| field(name).and_then(|text| text.parse().ok());
        let number = whole("physical id").unwrap_or(0);
        match all.iter_mut().find(|one| one.number == number) {
            Some(one) => one.threads += 1,
            None => {
                let model = field("model name").or_else(|| field("Model"));
                all.push(Processor { number, model, threads: 1, cores: whole("cpu cores") });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn processors_are_packages() {
        let block = |n, id| {
            format!("processor\t: {n}\nmodel name\t: Xeon\nphysical id\t: {id}\ncpu cores\t: 1\n")
        };
        let told = processors(&[block(0, 0), block(1, 0), block(2, 1)].join("\n"));
        let of = |number, threads| Processor {
            number,
            model: Some("Xeon".into()),
            threads,
            cores: Some(1),
        };
        assert_eq!(told, [of(0, 2), of(1, 1)]);
        assert_eq!(processors("processor : 0\n\nprocessor : 1\n\nHardware : x\n")[0].threads, 2);
        assert!(processors("").is_empty());
    }

    #[test]
    fn fans_memory_and_power_are_told_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/hwmon/hwmon0/name", "nct6775\n");
        write("sys/class/hwmon/hwmon0/fan1_input", "1200\n");
        write("sys/class/hwmon/hwmon0/fan2_input", "?\n");
        write("sys/class/hwmon/hwmon0/fan2_label", "CPU\n");
        write("sys/class/hwmon/hwmon0/temp1_input", "40000\n");
        write("sys/devices/system/edac/mc/mc0/dimm0/size", "16384\n");
        write("sys/devices/system/edac/mc/mc0/dimm0/dimm_label", "DIMM_A1\n");
        write("sys/devices/system/edac/mc/mc0/size_mb", "16384\n");
        write("sys/class/power_supply/AC/type", "Mains\n");
        write("sys/class/power_supply/AC/online", "1\n");
        let hardware = Hardware::at(dir.path());
        let fan = |name: &str, speed| Fan { name: name.into(), speed };
        assert_eq!(hardware.fans(), [fan("nct6775 fan1", Some(1200)), fan("nct6775 CPU", None)]);
        let module = MemoryModule { label: "DIMM_A1".into(), bytes: 16 << 30 };
        assert_eq!(hardware.memory_modules(), [module]);
        let mains = Battery { name: "AC".into(), kind: Some("Mains".into()), online: Some(true) };
        assert_eq!(hardware.power(), [mains]);
    }
}
