// Package image builds the image of api-router FROM scratch and runs it the way a careful operator does: read-only, without capabilities or new
// privileges, as nobody in particular, in 64 MiB of memory. It needs root, podman and buildah, and skips loudly without. Nothing is pulled.
package image
