// Command controller-manager is kube-controller-manager with the pauses of its Job controller as the environment says.
//
// JOB_SYNC_PERIOD is how long changes of a Job's pods are gathered (Kubernetes: 1s), JOB_POD_BACKOFF how long it waits
// before the first pod that failed is replaced (10s). No flag sets them.
package main

import (
	"fmt"
	"os"
	"time"
	_ "time/tzdata" // as kube-controller-manager

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/pkg/controller/job"
)

func main() {
	set(&job.SyncJobBatchPeriod, "JOB_SYNC_PERIOD")
	set(&job.DefaultJobPodFailureBackOff, "JOB_POD_BACKOFF")
	os.Exit(cli.Run(app.NewControllerManagerCommand()))
}

func set(period *time.Duration, name string) {
	text, given := os.LookupEnv(name)
	if !given {
		return
	}
	value, err := time.ParseDuration(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(2)
	}
	*period = value
}
