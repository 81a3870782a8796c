#!/bin/sh
# First boot of an Amazon Linux host: nitro-cli, memory for the enclave, the log's volume. Binaries, units and the image are brought
# afterwards, by hand or by your own tooling (deploy/install): whoever can change this script is the host's operator, not the enclave's.
set -eu
dnf install -y aws-nitro-enclaves-cli
mkdir -p /etc/nitro_enclaves
printf -- '---\nmemory_mib: %s\ncpu_count: 2\n' '${memory_mib}' > /etc/nitro_enclaves/allocator.yaml
device=/dev/nvme1n1
for _ in $(seq 60); do
  [ -b "$device" ] && break
  sleep 5
done
blkid "$device" || mkfs.ext4 -q "$device"
mkdir -p /var/lib/transcode-confidential
grep -q transcode-confidential /etc/fstab || echo "$device /var/lib/transcode-confidential ext4 defaults,nofail,nodev,nosuid,noexec 0 2" >> /etc/fstab
mount /var/lib/transcode-confidential
systemctl enable --now nitro-enclaves-allocator.service
