// Package policy decides whether a caller may deploy an artifact to an
// environment, and explains the answer.
//
// Policies are written in Cedar. [Compile] turns their text into a [Set], which
// answers a [Question] with a [Decision]:
//
//	set, err := policy.Compile([]byte(policy.DefaultPolicy()))
//	d := set.Decide(policy.Question{
//		Principal:     policy.Principal{ID: "…", Kind: "github-actions", Issuer: "https://token.actions.githubusercontent.com"},
//		Environment:   "prod",
//		Subject:       attest.Subject{Name: "app", Digest: map[string]string{"sha256": "5f70bf18…"}},
//		Evidence:      evidence, // from package verify, and from nowhere else
//		Now:           now,
//		BuilderLevels: map[string]int{instance + "/builders/github-actions/github-hosted": 2},
//	})
//	if !d.Allowed {
//		fmt.Println(d.Code, d.Message)
//		// DENIED_BY_RULE prod needs SLSA Build level 2 or higher; found
//		// resource.provenance.slsaBuildLevel = 0; to mend it: …
//	}
//
// # What is judged
//
// Only [verify.Evidence]. Nothing outside package verify can make a valid one,
// and a single invalid one denies the question. Evidence becomes facts, the
// attributes of one Assay::Artifact entity (see [Schema]). A fact exists only
// where evidence for it does. The SLSA level is what the service knows of the
// builder, never what a statement says of itself, and counts only in evidence
// that the instance signed: anyone can write a builder.id.
//
// An artifact may have several provenance attestations. Each is judged alone, and
// one under which every rule agrees is enough. Facts are never mixed between
// them. docs/design/0003-policy-facts.md argues why.
//
// # What is promised
//
// Every answer is a denial unless the rules were evaluated over at least one
// provenance attestation, none of them ended in an error for any attestation, a
// permit applied and no forbid did. In particular:
//
//   - An error in any rule denies (POLICY_ERROR). Cedar by itself skips a rule that
//     errors, and so a forbid over a missing fact would not fire.
//   - Compile refuses what the schema does not know, an optional attribute without
//     a guard, and rules without @id and @message.
//   - Compile refuses a set that might allow an artifact without evidence, in any
//     environment, for any caller (POLICY_VACUOUS). Decide denies that case by
//     itself as well (NO_ATTESTATION).
//   - The order of the evidence does not matter, and evidence of builders the
//     service does not know never helps where rules ask for trusted provenance.
//
// # How it explains
//
// For every rule that can fire in the environment the answer says whether it is
// satisfied. For one that is not, its conjuncts are evaluated one by one: Expected
// holds those that failed, in Cedar, and Found the values they looked at. A forbid
// is turned round first, so that Expected always reads as what to reach.
package policy
