//! Results as CSV with one line for each training, and their table.

use crate::Error;
use crate::options::{Data, Method, Options, Trial};
use crate::train::Outcome;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const HEAD: &str = "data,noise_percent,method,gamma,rho,decouple,epochs,batch_size,lr,seed,\
                    test_accuracy,train_loss,rise,eigenvalue,seconds";
/// Number of columns that identify a training.
const KEYS: usize = 10;

/// A CSV file of results.
pub(crate) struct Results {
    folder: PathBuf,
    /// Settings that all trainings share.
    settings: (Data, u32, f64),
    found: HashMap<String, Outcome>,
}

impl Results {
    /// Opens the folder and reads the results that it contains.
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        let folder = options.out.clone();
        fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        let settings = (options.data, options.batch_size, options.lr);
        let mut results = Self { folder, settings, found: HashMap::new() };
        let path = results.csv();
        if !path.exists() {
            fs::write(&path, format!("{HEAD}\n")).map_err(|error| Error::file(&path, error))?;
        }
        let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(Error::file(
                &path,
                "the first line is not the header of this example's results",
            ));
        }
        for (i, line) in lines.enumerate() {
            let columns: Vec<_> = line.split(',').collect();
            let numbers: Result<Vec<f64>, _> =
                columns.iter().skip(KEYS).map(|c| c.parse()).collect();
            let wrong = || Error::file(&path, format!("line {}: {line:?}", i + 2));
            let [test_accuracy, train_loss, rise, eigenvalue, seconds] =
                numbers.ok().and_then(|numbers| numbers.try_into().ok()).ok_or_else(wrong)?;
            let outcome = Outcome { test_accuracy, train_loss, rise, eigenvalue, seconds };
            results.found.insert(columns[..KEYS].join(","), outcome);
        }
        Ok(results)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn csv(&self) -> PathBuf {
        self.folder.join("results.csv")
    }

    fn key(&self, trial: &Trial) -> String {
        let (data, batch_size, lr) = self.settings;
        let (name, gamma, rho, decouple) = match trial.method {
            Method::Base => ("sgd", 0.0, 0.0, false),
            Method::Wsam { gamma, rho, decouple } => ("wsam", gamma, rho, decouple),
        };
        let Trial { noise, epochs, seed, .. } = trial;
        let data = format!("{data:?}").to_lowercase();
        format!("{data},{noise},{name},{gamma},{rho},{decouple},{epochs},{batch_size},{lr},{seed}")
    }

    pub(crate) fn has(&self, trial: &Trial) -> bool {
        self.found.contains_key(&self.key(trial))
    }

    /// Adds a result and writes it to the file.
    pub(crate) fn add(&mut self, trial: &Trial, outcome: &Outcome) -> Result<(), Error> {
        let Outcome { test_accuracy, train_loss, rise, eigenvalue, seconds } = outcome;
        let (key, path) = (self.key(trial), self.csv());
        let line = format!("{key},{test_accuracy},{train_loss},{rise},{eigenvalue},{seconds}\n");
        let appended = fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        appended.map_err(|error| Error::file(&path, error))?;
        self.found.insert(key, *outcome);
        Ok(())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| Error::file(&path, error))
    }

    /// Mean and standard deviation over the seeds of a quantity, for one kind of training.
    pub(crate) fn over_seeds(
        &self,
        trials: &[Trial],
        kind: &Trial,
        of: impl Fn(&Outcome) -> f64,
    ) -> (f64, f64) {
        let same = |trial: &&Trial| Trial { seed: kind.seed, ..**trial } == *kind;
        let values: Vec<f64> = trials
            .iter()
            .filter(same)
            .filter_map(|trial| self.found.get(&self.key(trial)))
            .map(of)
            .collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        // The sample standard deviation, 0 for a single training.
        (mean, if count > 1.0 { (square / (count - 1.0)).sqrt() } else { 0.0 })
    }

    /// A Markdown table with one row for each kind of training.
    pub(crate) fn table(&self, trials: &[Trial]) -> String {
        let mut lines = vec![
            "| noise | method | epochs | gradients | test accuracy, % | train loss | \
             loss rise | largest eigenvalue | s |"
                .to_owned(),
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |".to_owned(),
        ];
        let mut kinds: Vec<_> = trials.iter().filter(|trial| trial.seed == 1).copied().collect();
        kinds.sort_by_key(|kind| kind.noise);
        for kind in kinds {
            let over = |of: fn(&Outcome) -> f64| self.over_seeds(trials, &kind, of);
            let (accuracy, spread) = over(|outcome| 100.0 * outcome.test_accuracy);
            let [loss, rise, eigenvalue, seconds] = [
                over(|outcome| outcome.train_loss).0,
                over(|outcome| outcome.rise).0,
                over(|outcome| outcome.eigenvalue).0,
                over(|outcome| outcome.seconds).0,
            ];
            let Trial { noise, method, epochs, .. } = kind;
            let gradients = epochs * method.gradients();
            lines.push(format!(
                "| {noise} % | {method} | {epochs} | {gradients} | {accuracy:.2} ± {spread:.2} | \
                 {loss:.4} | {rise:.2e} | {eigenvalue:.3} | {seconds:.1} |"
            ));
        }
        lines.join("\n") + "\n"
    }
}
