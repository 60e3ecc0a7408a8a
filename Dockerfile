# The image of docker-compose.yaml: Airflow, the locked packages, the project. No compiler,
# no package manager's cache, no secret. Built from a checkout: `docker compose build`.

# The slim image is Airflow and nothing else: what runs is what requirements.txt says, with
# no provider beside it that would ask for other versions of the same packages.
FROM apache/airflow:slim-3.3.2-python3.12 AS wheel
WORKDIR /tmp/project
RUN pip install --no-cache-dir uv==0.13.9
COPY --chown=airflow:0 pyproject.toml README.md LICENSE requirements.in requirements-dev.txt ./
COPY --chown=airflow:0 tools tools
COPY --chown=airflow:0 include include
COPY --chown=airflow:0 plugins plugins
# The tools that build it are locked too.
RUN uv build --wheel --out-dir /tmp/wheel \
    --build-constraints requirements-dev.txt --require-hashes

FROM apache/airflow:slim-3.3.2-python3.12
COPY --chown=airflow:0 requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.txt
COPY --from=wheel /tmp/wheel /tmp/wheel
RUN pip install --no-cache-dir --no-deps /tmp/wheel/*.whl \
    && mkdir -p /opt/airflow/data_docs

# The code is installed once, by the wheel. Here is what Airflow reads from folders: the
# DAGs, the plugin's entrance, and what users edit.
COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 include/feeds /opt/airflow/include/feeds
COPY --chown=airflow:0 include/expectations /opt/airflow/include/expectations
ENV META_CAPI_HOME=/opt/airflow/include \
    META_CAPI_DATA_DOCS=/opt/airflow/data_docs \
    GX_ANALYTICS_ENABLED=False

USER 50000:0
