# Small and unprivileged: dependencies from the hashed lock, the project as a wheel, nothing else.
FROM python:3.13-slim AS build
COPY requirements-runtime.lock /build/
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes --requirement /build/requirements-runtime.lock
COPY pyproject.toml README.md LICENSE /build/
COPY alembic /build/alembic
COPY app /build/app
RUN /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --no-deps --no-build-isolation /build \
    && /opt/venv/bin/python -m pip uninstall --yes --quiet pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /srv my-symbols \
    && install --directory --owner my-symbols --group my-symbols /srv/var
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv
USER my-symbols
VOLUME /srv/var
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["my-symbols"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
