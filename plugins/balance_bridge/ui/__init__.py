"""The page in Airflow that shows whether the books are right: pages made by the server, behind Airflow's own login."""
