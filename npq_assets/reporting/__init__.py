"""What people look at: the decision report, pictures for the Dagster UI, the table at the end of a run."""
