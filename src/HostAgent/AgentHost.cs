using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Attach.Qemu;
using Fleet.HostAgent.ControlPlane;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Metrics;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Restore;
using Fleet.HostAgent.Service;
using Fleet.HostAgent.Spool;
using Fleet.HostAgent.State;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using Serilog;
using Serilog.Events;
using Serilog.Formatting.Compact;

namespace Fleet.HostAgent;

/// <summary>Composition of the agent.</summary>
public static class AgentHost
{
    public static void AddHostAgent(this HostApplicationBuilder builder)
    {
        var services = builder.Services;
        AddLogging(services, builder.Configuration[$"{AgentOptions.Section}:LogFormat"] == "json");
        services.AddOptions<AgentOptions>().Bind(builder.Configuration.GetSection(AgentOptions.Section)).ValidateOnStart();
        services.AddSingleton<IValidateOptions<AgentOptions>, AgentOptionsValidator>();
        services.AddSingleton(TimeProvider.System);

        services.AddSingleton<StateFolder>();
        services.AddSingleton<DesiredStore>();
        services.AddSingleton<AttachmentJournal>();
        services.AddSingleton<ReportSpool>();
        services.AddSingleton<HeldBack>();

        services.AddSingleton<StorePromise>();
        services.AddSingleton<GateStore>();
        services.AddSingleton<GateOutbox>();
        services.AddSingleton<DeviceAccess>();
        services.AddSingleton<MapLimit>();
        services.AddSingleton<GateKeeper>();
        services.AddSingleton<VmTable>();
        services.AddSingleton<WorkSet>();
        services.AddSingleton<ReconcileProgress>();
        services.AddSingleton<DesiredState>();
        services.AddSingleton<LossReports>();
        services.AddSingleton<VmReconciler>();
        services.AddSingleton<AllowedPaths>();
        services.AddSingleton<RefusalLog>();
        services.AddSingleton<Attachments>();
        services.AddSingleton<QemuMeter>();
        services.AddSingleton<QemuOpener>();
        services.AddSingleton<Takeover>();

        services.AddSingleton(new HardwareRoots());
        services.AddSingleton<MemoryModules>();
        services.AddSingleton<FaultJournal>();
        services.AddSingleton<HostFaults>();
        services.AddSingleton<PoisonIntake>();
        services.AddSingleton<DetectionQueue>();
        services.AddSingleton<MemoryFailureWatch>();
        services.AddSingleton<CorrectedErrors>();
        services.AddSingleton<AccessObserver>();

        services.AddSingleton<StatusSignal>();
        services.AddSingleton(CreateClient);
        services.AddSingleton<Enrollment>();
        services.AddSingleton<CredentialRotation>();
        services.AddSingleton<DesiredStream>();
        services.AddSingleton<Heartbeats>();
        services.AddSingleton<ReportSender>();
        services.AddSingleton<Stating>();

        services.AddSingleton<AgentGauges>();
        services.AddSingleton<MetricsEndpoint>();
        services.AddSingleton(ServiceManager.FromEnvironment());

        services.AddHostedService<ObservationService>();
        services.AddHostedService<ReconcileService>();
        services.AddHostedService<DetectionService>();
        services.AddHostedService<VmmListeners>();
        services.AddHostedService<QemuConnections>();
        services.AddHostedService<ControlPlaneService>();
        services.AddHostedService(provider => provider.GetRequiredService<MetricsEndpoint>());
        services.AddHostedService<ServiceNotifier>();
    }

    private static void AddLogging(IServiceCollection services, bool json)
    {
        var configuration = new LoggerConfiguration()
            .MinimumLevel.Information()
            // A line for every request to the control plane would be one for every heartbeat.
            .MinimumLevel.Override("System.Net.Http", LogEventLevel.Warning)
            .MinimumLevel.Override("Microsoft", LogEventLevel.Warning);
        Log.Logger = (json
            ? configuration.WriteTo.Console(new CompactJsonFormatter())
            : configuration.WriteTo.Console(
                outputTemplate: "{Timestamp:HH:mm:ss.fff} {Level:u3} {Message:lj}{NewLine}{Exception}", formatProvider: System.Globalization.CultureInfo.InvariantCulture))
            .CreateLogger();
        services.AddSerilog();
    }

    private static ControlPlaneClient CreateClient(IServiceProvider provider)
    {
        var options = provider.GetRequiredService<IOptions<AgentOptions>>().Value;
        return new ControlPlaneClient(ControlPlaneHttp.Create(options), options.Host);
    }
}
