//! Contradictions in what is supervised, and in how many backends a region has.

use super::{Check, shown};

impl Check<'_> {
    pub(super) fn processes(&mut self) {
        let settings = self.settings;
        // Ports that are given out: of whom, the first, and behind the last.
        let mut taken: Vec<(String, u32, u32)> = Vec::new();
        for (region, of_region) in &settings.regions {
            for (name, process) in &of_region.processes {
                let key = |key: &str| format!("regions.{region}.processes.{name}.{key}");
                if process.command.is_empty() {
                    let message =
                        "the process has no command; write it like [\"node\", \"server.js\"]";
                    let section = format!("regions.{region}.processes.{name}");
                    self.say(&[&section, &key("command")], message.to_owned());
                }
                if let Some(dir) = process.dir.as_ref().filter(|dir| !dir.is_dir()) {
                    self.say(&[&key("dir")], format!("{} is not a folder", dir.display()));
                }
                if process.restart_min > process.restart_max {
                    let message = format!(
                        "restart_min, {}, must not be longer than restart_max, {}",
                        shown(process.restart_min),
                        shown(process.restart_max)
                    );
                    self.say(&[&key("restart_min"), &key("restart_max")], message);
                }
                let Some(base) = process.port_base else { continue };
                // One more, for the one that takes another's place.
                let (first, count) = (u32::from(base.get()), process.instances.count());
                let end = first + u32::try_from(count).unwrap_or(u32::MAX) + 1;
                let (this, instances) = (key("port_base"), key("instances"));
                if end > u32::from(u16::MAX) + 1 {
                    let message = format!(
                        "{count} instances and one in reserve need ports up to {}",
                        end - 1
                    );
                    self.say(&[&this, &instances], message);
                }
                if let Some((other, ..)) =
                    taken.iter().find(|(_, from, to)| first < *to && *from < end)
                {
                    let message = format!(
                        "the ports {first} to {} overlap with those of {}",
                        end - 1,
                        self.with_source(other)
                    );
                    let other = other.clone();
                    self.say(&[&this, &other, &instances], message);
                }
                taken.push((this, first, end));
            }
        }
    }
}
