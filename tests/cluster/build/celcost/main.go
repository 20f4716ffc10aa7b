// Command celcost prints what apiextensions-apiserver estimates each validation rule of a CustomResourceDefinition to
// cost, and what it has against the whole: the same walk with the same estimator as when a definition is created.
//
// It reads the definition from standard input, as YAML or JSON, and writes JSON. The release that it speaks for is the
// one that it is built with (../go.mod, ../oldest.mod).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// Rule is a rule at its place, like spec.template.env[], and its cost times how often the place can exist.
type Rule struct {
	Path string `json:"path"`
	Rule string `json:"rule"`
	Cost uint64 `json:"cost"`
}

// Version is a version of the definition: the limit on a total is the limit of each.
type Version struct {
	Name  string `json:"name"`
	Total uint64 `json:"total"`
	Rules []Rule `json:"rules"`
}

// Answer is what the program writes.
type Answer struct {
	RuleLimit  uint64    `json:"ruleLimit"`
	TotalLimit uint64    `json:"totalLimit"`
	Versions   []Version `json:"versions"`
	Errors     []string  `json:"errors"`
}

func main() {
	answer, err := judge(os.Stdin)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judge(input io.Reader) (*Answer, error) {
	definition, err := read(input)
	if err != nil {
		return nil, err
	}
	answer := &Answer{
		RuleLimit:  validation.StaticEstimatedCostLimit,
		TotalLimit: validation.StaticEstimatedCRDCostLimit,
		Errors:     []string{},
	}
	for _, found := range validation.ValidateCustomResourceDefinition(context.Background(), definition) {
		answer.Errors = append(answer.Errors, found.Error())
	}
	base := baseEnvironment()
	for _, each := range definition.Spec.Versions {
		schema, err := apiextensions.GetSchemaForVersion(definition, each.Name)
		if err != nil {
			return nil, err
		}
		found := Version{Name: each.Name, Rules: []Rule{}}
		if schema != nil && schema.OpenAPIV3Schema != nil {
			root := schema.OpenAPIV3Schema
			if err := found.add(root, "", validation.RootCELContext(root), base); err != nil {
				return nil, err
			}
		}
		answer.Versions = append(answer.Versions, found)
	}
	return answer, nil
}

func read(input io.Reader) (*apiextensions.CustomResourceDefinition, error) {
	text, err := io.ReadAll(input)
	if err != nil {
		return nil, err
	}
	written, definition := &apiextensionsv1.CustomResourceDefinition{}, &apiextensions.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, written); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	scheme.Default(written)
	// What the API server writes when it stores a new definition.
	written.Status.StoredVersions = nil
	for _, each := range written.Spec.Versions {
		if each.Storage {
			written.Status.StoredVersions = append(written.Status.StoredVersions, each.Name)
		}
	}
	return definition, scheme.Convert(written, definition, nil)
}

// baseEnvironment returns what rules of new objects may use. Up to 1.32 the cost limits were an option of it.
func baseEnvironment() *environment.EnvSet {
	of := environment.DefaultCompatibilityVersion()
	switch make := any(environment.MustBaseEnvSet).(type) {
	case func(*version.Version) *environment.EnvSet:
		return make(of)
	case func(*version.Version, bool) *environment.EnvSet:
		return make(of, true)
	default:
		panic(fmt.Sprintf("environment.MustBaseEnvSet is a %T", make))
	}
}

func (v *Version) add(
	schema *apiextensions.JSONSchemaProps, path string, place *validation.CELSchemaContext, base *environment.EnvSet,
) error {
	if items := schema.Items; items != nil && items.Schema != nil {
		if err := v.add(items.Schema, path+"[]", place.ChildItemsContext(items.Schema), base); err != nil {
			return err
		}
	}
	if more := schema.AdditionalProperties; more != nil && more.Schema != nil {
		if err := v.add(more.Schema, path+"{}", place.ChildAdditionalPropertiesContext(more.Schema), base); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property, child := schema.Properties[name], name
		if path != "" {
			child = path + "." + name
		}
		if err := v.add(&property, child, place.ChildPropertyContext(&property, name), base); err != nil {
			return err
		}
	}
	if len(schema.XValidations) == 0 {
		return nil
	}
	info, err := place.TypeInfo()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	results, err := cel.Compile(
		info.Schema, info.DeclType, celconfig.PerCallLimit, base, cel.NewExpressionsEnvLoader(),
	)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for i, result := range results {
		// The widest list or map above that has no limit counts as many times as a request could hold it.
		times := result.MaxCardinality
		if place.MaxCardinality != nil {
			times = *place.MaxCardinality
		}
		v.observe(path, schema.XValidations[i].Rule, product(result.MaxCost, times))
		if result.MessageExpression != nil {
			v.observe(path, schema.XValidations[i].MessageExpression, result.MessageExpressionMaxCost)
		}
	}
	return nil
}

func (v *Version) observe(path, rule string, cost uint64) {
	v.Rules = append(v.Rules, Rule{path, rule, cost})
	if v.Total > math.MaxUint64-cost {
		v.Total = math.MaxUint64
	} else {
		v.Total += cost
	}
}

func product(cost, times uint64) uint64 {
	if cost != 0 && math.MaxUint64/cost < times {
		return math.MaxUint64
	}
	return cost * times
}
