#!/usr/bin/env bash
# What a CEL rule of a CustomResourceDefinition may cost is estimated from maxLength, and the API server refuses rules that
# are too dear. For x-kubernetes-int-or-string apiextensions-apiserver ignores maxLength up to 0.33 (Kubernetes 1.33):
# `string(self)` counts as 3 MiB. A definition that 1.34 and newer take is refused. And in both, `string(self)` of a *string*
# counts as unbounded, although it converts nothing: more than 100 times the limit, where `self` costs next to nothing.
#
# One would guess that maxLength bounds the value wherever it is validated, and it does bound what may be stored. It matters
# here, since amounts of resources are int-or-string: a CRD that is tested on a new release alone cannot be installed on an
# older one, and its author hears nothing of it.
#
# Needs Go 1.24 or newer and the Go module proxy; takes some minutes the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > main.go <<'EOF'
package main

import (
	"context"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const crd = `
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {plural: things, singular: thing, kind: Thing, listKind: ThingList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          limits:
            type: object
            maxProperties: 32
            additionalProperties:
              %s
              maxLength: 64
              x-kubernetes-validations:
              - {rule: "%s.matches('^[0-9]+(m|Gi)?$')", message: must be a quantity}
status: {storedVersions: [v1]}
`

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	for _, each := range [][2]string{
		{"type: string", "self"},
		{"type: string", "string(self)"},
		{"x-kubernetes-int-or-string: true", "string(self)"},
	} {
		written, read := &v1.CustomResourceDefinition{}, &apiextensions.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict([]byte(fmt.Sprintf(crd, each[0], each[1])), written); err != nil {
			panic(err)
		}
		scheme.Default(written)
		if err := scheme.Convert(written, read, nil); err != nil {
			panic(err)
		}
		errors := validation.ValidateCustomResourceDefinition(context.Background(), read)
		if len(errors) == 0 {
			fmt.Printf("%s, %s: taken\n", each[0], each[1])
		} else {
			fmt.Printf("%s, %s: refused: %.64s\n", each[0], each[1], errors[0].Detail)
		}
	}
}
EOF

judge() {
  cat > go.mod <<EOF
module finding

go 1.24.0

require (
	k8s.io/apiextensions-apiserver $1
	k8s.io/apimachinery $1
	sigs.k8s.io/yaml v1.4.0
)
EOF
  rm -f go.sum
  GOFLAGS=-mod=mod go mod tidy 2> /dev/null
  CGO_ENABLED=0 go run -buildvcs=false .
}

echo "apiextensions-apiserver v0.33.0:"
judge v0.33.0 | tee old
echo "apiextensions-apiserver v0.34.1:"
judge v0.34.1 | tee new

for answer in old new; do
  grep -q 'type: string, self: taken' $answer
  grep -q 'type: string, string(self): refused: estimated rule cost exceeds budget by factor of more than 100x' $answer
done
grep -q 'int-or-string: true, string(self): refused: estimated rule cost exceeds budget' old
grep -q 'int-or-string: true, string(self): taken' new
echo "As expected: the bound of an int-or-string counts from 1.34 on."
