"""Answers that have no single right one, judged by a language model: always under the judge's name."""
