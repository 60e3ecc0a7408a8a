"""The embassy: Airflow's words in, the core's words out."""
