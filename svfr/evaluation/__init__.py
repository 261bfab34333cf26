"""Evaluation of restored videos against their ground truth: match, measure, record, report."""
