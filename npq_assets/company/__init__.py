"""The sample company: a simulator stepped one day at a time under policies.

Engines, contracts and Dagster do not belong here; the company only writes landing files and reads decision files, as
any real company would.
"""

from npq_assets.company.landing import SampleSummary, write_sample

__all__ = ["SampleSummary", "write_sample"]
