"""Alpha sweeps that resume: settings, trials, the run directory, keras-tuner around them."""

from keras_structsparse.sweeps.run_directory import Found, Run, open_run, read_run
from keras_structsparse.sweeps.settings import Search, Settings, Trial
from keras_structsparse.sweeps.sweeping import sweep

__all__ = ["Found", "Run", "Search", "Settings", "Trial", "open_run", "read_run", "sweep"]
