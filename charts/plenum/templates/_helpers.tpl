{{- /* SPDX-License-Identifier: EUPL-1.2 */ -}}
{{- /* Names are fixed: kinds and admission policies belong to the cluster, so a cluster has one installation. */ -}}

{{- define "plenum.selector" -}}
app.kubernetes.io/name: plenum
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{- define "plenum.commonLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: plenum
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* labels of an object: (list $ component) */ -}}
{{- define "plenum.labels" -}}
{{ include "plenum.selector" (index . 1) }}
{{ include "plenum.commonLabels" (index . 0) }}
{{- end -}}

{{- /* labels of a pod: nothing that changes without the pod (list $ component) */ -}}
{{- define "plenum.podLabels" -}}
{{ include "plenum.selector" (index . 1) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/part-of: plenum
{{- end -}}

{{- /* reference of an image: (list $ image) */ -}}
{{- define "plenum.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $root.Values.global.imageRegistry) $image.repository -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end -}}

{{- define "plenum.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* what Pod Security "restricted" asks of a pod and of a container, and a root file system that nobody writes */ -}}
{{- define "plenum.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "plenum.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* replicas apart from each other: (list $ component mode) */ -}}
{{- define "plenum.spread" -}}
{{- $component := index . 1 -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "plenum.selector" $component | fromYaml)) -}}
affinity:
  podAntiAffinity:
{{- if eq (index . 2) "Required" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - {{ toYaml $term | nindent 8 | trim }}
{{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          {{- toYaml $term | nindent 10 }}
{{- end }}
topologySpreadConstraints:
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "plenum.selector" $component | nindent 8 }}
{{- end -}}

{{- /* A rolling update that needs no third host where replicas must not share one. */ -}}
{{- define "plenum.strategy" -}}
type: RollingUpdate
rollingUpdate:
{{- if and (eq .spread "Required") (gt (int .replicas) 1) }}
  maxSurge: 0
  maxUnavailable: 1
{{- else }}
  maxSurge: 1
  maxUnavailable: 0
{{- end }}
{{- end -}}

{{- define "plenum.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "plenum.listen" -}}
{{- if eq .Values.network.ipFamily "IPv6" }}[::]{{ else }}0.0.0.0{{ end -}}
{{- end -}}

{{- define "plenum.podAddress" -}}
{{- if eq .Values.network.ipFamily "IPv6" }}[$(POD_IP)]{{ else }}$(POD_IP){{ end -}}
{{- end -}}

{{- define "plenum.replicas" -}}
plenum-control-plane-replicas.{{ .Release.Namespace }}.svc.{{ .Values.network.clusterDomain }}
{{- end -}}

{{- define "plenum.gatewayUrl" -}}
{{- if .Values.gateway.publicUrl -}}
{{ trimSuffix "/" .Values.gateway.publicUrl }}
{{- else -}}
https://plenum-gateway.{{ .Release.Namespace }}.svc.{{ .Values.network.clusterDomain }}
{{- end -}}
{{- end -}}

{{- define "plenum.redisSecret" -}}
{{- if .Values.redis.existingSecret }}{{ .Values.redis.existingSecret }}{{ else }}plenum-redis{{ end -}}
{{- end -}}

{{- define "plenum.installationKeySecret" -}}
{{- default "plenum-installation-key" .Values.secrets.installationKey.existingSecret -}}
{{- end -}}

{{- define "plenum.sealKeySecret" -}}
{{- default "plenum-seal-key" .Values.secrets.sealKey.existingSecret -}}
{{- end -}}

{{- define "plenum.gatewayTlsSecret" -}}
{{- default "plenum-gateway-tls" .Values.gateway.tls.existingSecret -}}
{{- end -}}

{{- define "plenum.controlPlaneTlsSecret" -}}
{{- default "plenum-control-plane-tls" .Values.controlPlane.tls.existingSecret -}}
{{- end -}}

{{- /* what the schema cannot say, in words that name the field and the remedy */ -}}
{{- define "plenum.validate" -}}
{{- $v := .Values -}}
{{- if and (eq $v.store "Memory") (gt (int $v.controlPlane.replicas) 1) -}}
{{- fail "controlPlane.replicas: the store Memory lives in one process and allows one replica; set controlPlane.replicas=1, or store=Redis" -}}
{{- end -}}
{{- if and (eq $v.store "Redis") (not $v.redis.existingSecret) (not $v.redis.demonstration.enabled) -}}
{{- fail "redis: store=Redis needs a Redis; name a Secret with the key url in redis.existingSecret, or set redis.demonstration.enabled=true to try things out" -}}
{{- end -}}
{{- if and $v.redis.existingSecret $v.redis.demonstration.enabled -}}
{{- fail "redis: redis.existingSecret and redis.demonstration.enabled exclude each other; set redis.demonstration.enabled=false" -}}
{{- end -}}
{{- range $v.mediaNamespaces -}}
{{- if eq .name $.Release.Namespace -}}
{{- fail (printf "mediaNamespaces: %s is the namespace of the installation, which must stay restricted; media pods need another one" .name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.gateway.service.type "ClusterIP") $v.gateway.service.nodePort -}}
{{- fail "gateway.service.nodePort: is for the types NodePort and LoadBalancer; set gateway.service.type=NodePort" -}}
{{- end -}}
{{- end -}}

{{- /* names in the certificate of the gateway: of its Service, of publicUrl, and those that are wanted besides */ -}}
{{- define "plenum.gatewayNames" -}}
{{- $names := list "plenum-gateway" (printf "plenum-gateway.%s" .Release.Namespace) (printf "plenum-gateway.%s.svc" .Release.Namespace) (printf "plenum-gateway.%s.svc.%s" .Release.Namespace .Values.network.clusterDomain) -}}
{{- with .Values.gateway.publicUrl -}}
{{- $names = append $names (regexReplaceAll ":[0-9]+$" (urlParse .).host "" | trimPrefix "[" | trimSuffix "]") -}}
{{- end -}}
{{- range .Values.gateway.tls.dnsNames -}}{{- $names = append $names . -}}{{- end -}}
{{- uniq $names | toYaml -}}
{{- end -}}

{{- /* the most that the schema of a Tenant allows */ -}}
{{- define "plenum.limitMaxima" -}}
concurrentRooms: 100000
conferences: 1500
egressMbps: 10000000
participants: 1000000
participantsPerRoom: 10000
publishers: 1000000
publishersPerRoom: 1000
{{- end -}}

{{- /* how long a class of data is kept where a tenant says nothing */ -}}
{{- define "plenum.retentionDefaults" -}}
application: P3M
attendance: P0D
audit: P12M
billing: P2Y
chat: P0D
connections: P10D
files: P0D
infrastructure: P12M
recordings: P0D
system: P1M
usage: P2Y
userActions: P10D
{{- end -}}
