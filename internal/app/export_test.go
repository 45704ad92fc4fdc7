package app

import "github.com/prometheus/client_golang/prometheus"

// Registry gives tests what the metrics listener shows.
func (a *App) Registry() *prometheus.Registry { return a.metrics.registry }
