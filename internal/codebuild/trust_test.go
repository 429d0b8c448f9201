package codebuild

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

const goodTrust = `{"Effect":"Allow","Principal":{"Service":"codebuild.amazonaws.com"},"Action":"sts:AssumeRole"}`

func trustDocument(statements ...string) string {
	return url.PathEscape(`{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`)
}

func TestCheckTrust(t *testing.T) {
	t.Parallel()
	const wide, broken = CodeRoleTrustTooWide, CodeRoleTrustInvalid
	with := func(old, new string) string { return trustDocument(strings.Replace(goodTrust, old, new, 1)) }
	service := `{"Service":"codebuild.amazonaws.com"}`
	for name, c := range map[string]struct {
		document string
		want     refusal.Code
	}{
		"only CodeBuild":         {trustDocument(goodTrust), ""},
		"one statement":          {url.PathEscape(`{"Version":"2012-10-17","Statement":` + goodTrust + `}`), ""},
		"spaces":                 {url.PathEscape("{ \"Version\" : \"2012-10-17\",\n \"Statement\" : [ " + goodTrust + " ] }"), ""},
		"old version":            {url.PathEscape(`{"Version":"2008-10-17","Id":"x","Statement":[` + goodTrust + `]}`), ""},
		"lists":                  {with(service, `{"Service":["codebuild.amazonaws.com"]}`), ""},
		"action in lists":        {with(`"sts:AssumeRole"`, `["sts:assumerole","sts:TagSession"]`), ""},
		"source account":         {with(`"Action"`, `"Condition":{"StringEquals":{"aws:SourceAccount":"111122223333"}},"Action"`), ""},
		"source ARN":             {with(`"Action"`, `"Condition":{"ArnLike":{"aws:SourceArn":["arn:aws:codebuild:eu-west-1:111122223333:project/app"]}},"Action"`), ""},
		"deny beside":            {trustDocument(goodTrust, `{"Sid":"x","Effect":"Deny","Principal":"*","Action":"sts:*"}`), ""},
		"a plus sign":            {with(`"Action"`, `"Sid":"a%2Bb+c","Action"`), ""},
		"everybody":              {with(service, `"*"`), wide},
		"everybody in AWS":       {with(service, `{"AWS":"*"}`), wide},
		"every service":          {with(service, `{"Service":"*"}`), wide},
		"the account":            {with(service, `{"AWS":"arn:aws:iam::111122223333:root"}`), wide},
		"the account's id":       {with(service, `{"AWS":"111122223333"}`), wide},
		"another role":           {with(service, `{"Service":"codebuild.amazonaws.com","AWS":"arn:aws:iam::111122223333:role/admin"}`), wide},
		"another service":        {with(service, `{"Service":["codebuild.amazonaws.com","ec2.amazonaws.com"]}`), wide},
		"service of a region":    {with(service, `{"Service":"codebuild.eu-west-1.amazonaws.com"}`), wide},
		"service, differently":   {with(service, `{"Service":"CodeBuild.amazonaws.com"}`), wide},
		"service, longer":        {with(service, `{"Service":"codebuild.amazonaws.com.evil.example"}`), wide},
		"service as AWS":         {with(service, `{"AWS":"codebuild.amazonaws.com"}`), wide},
		"federated":              {with(service, `{"Federated":"cognito-identity.amazonaws.com"}`), wide},
		"second statement":       {trustDocument(goodTrust, strings.Replace(goodTrust, service, `{"AWS":"arn:aws:iam::111122223333:user/alice"}`, 1)), wide},
		"wide with condition":    {trustDocument(goodTrust, `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"x"}}}`), wide},
		"tagging for others":     {trustDocument(goodTrust, `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:TagSession"}`), wide},
		"every action":           {with(`"sts:AssumeRole"`, `"sts:*"`), wide},
		"NotPrincipal":           {with(`"Principal":`+service, `"NotPrincipal":{"AWS":"arn:aws:iam::111122223333:user/bob"}`), wide},
		"NotPrincipal as well":   {with(`"Action"`, `"NotPrincipal":{"AWS":"x"},"Action"`), wide},
		"NotAction":              {with(`"Action":"sts:AssumeRole"`, `"NotAction":"sts:TagSession"`), wide},
		"deny with NotAction":    {trustDocument(goodTrust, `{"Effect":"Deny","Principal":"*","NotAction":"sts:AssumeRole"}`), wide},
		"null beside":            {with(service, `{"Service":"codebuild.amazonaws.com","AWS":null}`), broken},
		"null in the list":       {with(service, `{"Service":["codebuild.amazonaws.com",null]}`), broken},
		"no principal":           {with(`"Principal":`+service+`,`, ``), broken},
		"principal of none":      {with(service, `{}`), broken},
		"services of none":       {with(service, `{"Service":[]}`), broken},
		"principal null":         {with(service, `null`), wide},
		"principal a number":     {with(service, `7`), wide},
		"principal list":         {with(service, `["codebuild.amazonaws.com"]`), wide},
		"no action":              {with(`,"Action":"sts:AssumeRole"`, ``), broken},
		"actions of none":        {with(`"sts:AssumeRole"`, `[]`), broken},
		"only tagging":           {with(`"sts:AssumeRole"`, `"sts:TagSession"`), broken},
		"effect differently":     {with(`"Allow"`, `"allow"`), broken},
		"no effect":              {with(`"Effect":"Allow",`, ``), broken},
		"only deny":              {with(`"Allow"`, `"Deny"`), broken},
		"unknown element":        {with(`"Action"`, `"Resource":"*","Action"`), broken},
		"case variant":           {with(`"Principal"`, `"principal"`), broken},
		"duplicate principal":    {with(`"Action"`, `"Principal":{"AWS":"*"},"Action"`), broken},
		"duplicate, in case":     {with(service, `{"Service":"codebuild.amazonaws.com","service":"ec2.amazonaws.com"}`), broken},
		"duplicate statements":   {url.PathEscape(`{"Version":"2012-10-17","Statement":[` + goodTrust + `],"Statement":[]}`), broken},
		"condition a list":       {with(`"Action"`, `"Condition":["x"],"Action"`), broken},
		"condition a number":     {with(`"Action"`, `"Condition":{"NumericEquals":{"x":7}},"Action"`), broken},
		"condition a flag":       {with(`"Action"`, `"Condition":{"Bool":{"aws:ViaAWSService":true}},"Action"`), ""},
		"condition empty":        {with(`"Action"`, `"Condition":{"StringEquals":{}},"Action"`), broken},
		"no statement":           {url.PathEscape(`{"Version":"2012-10-17"}`), broken},
		"statements of none":     {trustDocument(), broken},
		"statement null":         {url.PathEscape(`{"Version":"2012-10-17","Statement":null}`), broken},
		"null statement":         {trustDocument(goodTrust, "null"), broken},
		"version unknown":        {url.PathEscape(`{"Version":"2030-01-01","Statement":[` + goodTrust + `]}`), broken},
		"trailing data":          {trustDocument(goodTrust) + url.PathEscape(`{}`), broken},
		"not escaped well":       {"%zz", broken},
		"empty":                  {"", broken},
		"not JSON":               {"codebuild.amazonaws.com", broken},
		"too long":               {strings.Repeat("%20", maxTrustBytes), broken},
		"escaped only in part":   {trustDocument(strings.Replace(goodTrust, "codebuild.", "\\u0063odebuild.", 1)), ""},
		"principal in principal": {with(service, `{"Service":{"Service":"codebuild.amazonaws.com"}}`), broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantCode(t, checkTrust(c.document), c.want)
		})
	}
}

// TestTrustAddedPrincipal: whatever else a policy says, an Allow for anybody but
// CodeBuild, anywhere in it, refuses it.
func TestTrustAddedPrincipal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		statements := rapid.SliceOfN(rapid.SampledFrom([]string{
			goodTrust,
			`{"Effect":"Deny","Principal":"*","Action":"sts:AssumeRole"}`,
			`{"Sid":"s","Effect":"Allow","Principal":{"Service":["codebuild.amazonaws.com"]},"Action":["sts:AssumeRole"]}`,
		}), 0, 4).Draw(t, "statements")
		kind := rapid.SampledFrom([]string{"AWS", "Service", "Federated", "CanonicalUser", "service"}).Draw(t, "kind")
		name := rapid.String().Filter(func(s string) bool { return s != "" && s != codeBuildService }).Draw(t, "name")
		quoted, _ := json.Marshal(name)
		stranger := `{"Effect":"Allow","Principal":{"` + kind + `":["codebuild.amazonaws.com",` + string(quoted) + `]},"Action":"sts:AssumeRole"}`
		at := rapid.IntRange(0, len(statements)).Draw(t, "at")
		all := append(append(append([]string{}, statements[:at]...), stranger), statements[at:]...)
		if err := checkTrust(trustDocument(all...)); refusal.CodeOf(err) != CodeRoleTrustTooWide {
			t.Fatalf("got %v", err)
		}
	})
}

func FuzzCheckTrust(f *testing.F) {
	f.Add(trustDocument(goodTrust))
	f.Add(trustDocument(`{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}`))
	f.Add(`{"Statement":[]}`)
	f.Fuzz(func(t *testing.T, s string) {
		err := checkTrust(s)
		if err != nil && refusal.CodeOf(err) == "" {
			t.Fatalf("%v has no code", err)
		}
		// Nobody can be let in by a text that does not name CodeBuild.
		text, _ := url.PathUnescape(s)
		if err == nil && !strings.Contains(text, `\u`) && !strings.Contains(text, codeBuildService) {
			t.Fatalf("accepted %q", s)
		}
	})
}
