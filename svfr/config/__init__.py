"""Settings: one schema with defaults per command, yaml files and `key=value` overrides."""

from svfr.config.checks import ConfigError
from svfr.config.eval import EvalConfig
from svfr.config.infer import InferConfig
from svfr.config.load import load, save
from svfr.config.testset import TestsetConfig
from svfr.config.train import DataConfig, TrainConfig

__all__ = ["ConfigError", "DataConfig", "EvalConfig", "InferConfig", "TestsetConfig", "TrainConfig", "load", "save"]
