# Flash Studio in a container: the page and its APIs on port 7860, everything that it keeps in /data.
#
# compose.yaml says how it is run, on a CPU or a GPU.
#
# pip's usual PyTorch for Linux computes on both. Where the small CPU build is wanted, --build-arg TORCH takes what the
# install page of PyTorch shows.
FROM python:3.11-slim

ARG TORCH="torch>=2.6,<2.14"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# libgomp: what torch's own kernels share their work by.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt ./
RUN pip install ${TORCH} && pip install -r requirements.txt

RUN useradd --uid 1000 --create-home studio && mkdir /data && chown studio:studio /data
COPY --chown=studio:studio . .

USER studio
ENV FLASH_STUDIO_HOST=0.0.0.0 \
    FLASH_STUDIO_DATA_DIR=/data \
    HF_HOME=/data/cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
VOLUME /data
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-m", "studio.web.alive"]
CMD ["python", "app.py"]
