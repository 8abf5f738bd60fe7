using System.Diagnostics.Metrics;
using Fleet.Api.Agents;
using Fleet.Api.OpenApi;
using Fleet.Api.Security;
using Fleet.Contracts.Hosts;
using Fleet.Data;
using Prometheus;

namespace Fleet.Api.Metrics;

/// <summary>GET /metrics in the text format of Prometheus: this program's instruments and those of the web server.</summary>
public static class MetricsEndpoint
{
    private const string ContentType = "text/plain; version=0.0.4; charset=utf-8";

    public static void AddFleetMetrics(this IServiceCollection services)
    {
        services.AddSingleton<MetricsRegistry>();
        services.AddHostedService(provider => provider.GetRequiredService<MetricsRegistry>());
    }

    public static void MapMetrics(this IEndpointRouteBuilder routes) =>
        routes.MapGet("/metrics", async (HttpContext http, MetricsRegistry metrics) =>
            {
                http.Response.ContentType = ContentType;
                await metrics.WriteAsync(http.Response.Body, http.RequestAborted);
            })
            .RequireAuthorization(Scopes.Read)
            .WithName("Metrics")
            .WithTags("Health")
            .WithSummary("Metrics in the text format of Prometheus")
            .Produces<string>(StatusCodes.Status200OK, "text/plain")
            .WithProblems();
}

/// <summary>Listens to the instruments from the program's start to its end, and adds what is looked up when it is asked.</summary>
public sealed class MetricsRegistry(StatusBoard board) : IHostedService, IDisposable
{
    private static readonly string[] States = [HostStates.Online, HostStates.Unknown, HostStates.Offline];

    // Instruments of others that are worth their lines; everything in the process would be hundreds.
    private static readonly string[] Meters = [FleetMeter.Name, "Microsoft.AspNetCore.Hosting", "Microsoft.AspNetCore.Server.Kestrel", "System.Runtime"];
    private readonly CollectorRegistry _registry = Prometheus.Metrics.NewCustomRegistry();
    private readonly Meter _board = new(FleetMeter.Name);
    private IDisposable? _listening;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        _board.CreateObservableGauge(
            "agents", () => States.Select(state => new Measurement<int>(board.All().Count(host => host.State == state), new KeyValuePair<string, object?>("state", state))),
            null, "Hosts by the state of their agent.");
        _board.CreateObservableGauge("agents.held", () => board.Held, null, "Hosts that fell silent at one time and that the brake on mass expiry holds online.");
        _listening = MeterAdapter.StartListening(new MeterAdapterOptions
        {
            Registry = _registry,
            MetricFactory = Prometheus.Metrics.WithCustomRegistry(_registry),
            InstrumentFilterPredicate = instrument => Meters.Contains(instrument.Meter.Name) && (instrument.Meter.Name != FleetMeter.Name || instrument.Meter == _board || instrument.Meter == FleetMeter.Meter),
            ResolveHistogramBuckets = instrument => instrument.Unit == "s"
                ? [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
                : [1, 2, 4, 8, 16, 32, 64, 128, 256],
        });
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task WriteAsync(Stream body, CancellationToken cancellationToken) => _registry.CollectAndExportAsTextAsync(body, cancellationToken);

    public void Dispose()
    {
        _listening?.Dispose();
        _board.Dispose();
    }
}
