# yoloprune on the CPU. docker build -t yoloprune . ; then, in the folder of your data:
# docker run --rm --ipc=host --user "$(id -u):$(id -g)" -v "$PWD":/work yoloprune v8 best.pt --data data.yaml --target-ratio 0.5
FROM python:3.12-slim

RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

COPY . /src
# The headless build of OpenCV needs no display's libraries.
RUN pip install --no-cache-dir /src \
    && pip uninstall -y opencv-python \
    && pip install --no-cache-dir opencv-python-headless \
    && rm -r /src

# Ultralytics and matplotlib write settings, and any user may run the container.
ENV YOLO_CONFIG_DIR=/tmp YOLO_AUTOINSTALL=false MPLCONFIGDIR=/tmp
WORKDIR /work
ENTRYPOINT ["yoloprune"]
