//! Constructors that open a device for the engine.

use super::error::EngineError;
use super::recorder::Engine;

impl Engine {
    /// Selects an adapter, opens a device on it, and returns the engine with the adapter's info.
    ///
    /// The default is wgpu's high-performance adapter. As in wgpu's own examples, `WGPU_ADAPTER_NAME`
    /// (part of a name) and `WGPU_BACKEND` select another. Blocks until the device is open.
    ///
    /// # Errors
    ///
    /// [`EngineError::Environment`] if `WGPU_BACKEND` names an unknown backend, [`EngineError::NoAdapter`] if no
    /// adapter matches, and the errors of [`Engine::new`].
    pub fn on_any_adapter() -> Result<(Self, wgpu::AdapterInfo), EngineError> {
        check_backends()?;
        let no_adapter =
            |reason: &dyn std::fmt::Display| EngineError::NoAdapter { reason: reason.to_string() };
        let instance =
            wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let wanted = std::env::var("WGPU_ADAPTER_NAME").ok().map(|name| name.to_lowercase());
        let adapter = pollster::block_on(async {
            let Some(wanted) = wanted else {
                let options = wgpu::RequestAdapterOptions {
                    power_preference: wgpu::PowerPreference::HighPerformance,
                    ..Default::default()
                };
                return instance.request_adapter(&options).await.map_err(|e| no_adapter(&e));
            };
            let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
            let fits =
                |adapter: &wgpu::Adapter| adapter.get_info().name.to_lowercase().contains(&wanted);
            let unmatched =
                || no_adapter(&format!("no adapter's name contains WGPU_ADAPTER_NAME={wanted:?}"));
            adapters.into_iter().find(fits).ok_or_else(unmatched)
        })?;
        Self::on_adapter(&adapter)
    }

    /// Opens a device with all of the adapter's limits and creates an engine on it. Blocks until the
    /// device is open.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoAdapter`] if the adapter grants no device, and the errors of
    /// [`Engine::new`].
    pub fn on_adapter(adapter: &wgpu::Adapter) -> Result<(Self, wgpu::AdapterInfo), EngineError> {
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("wsam"),
            // For Engine::time_dispatches.
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            required_limits: adapter.limits(),
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|error| EngineError::NoAdapter { reason: error.to_string() })?;
        Ok((Self::new(&device, &queue)?, adapter.get_info()))
    }
}

/// Checks that wgpu knows every backend that `WGPU_BACKEND` names. wgpu itself ignores unknown names.
fn check_backends() -> Result<(), EngineError> {
    let name = "WGPU_BACKEND";
    let Some(value) = std::env::var_os(name) else { return Ok(()) };
    let value = value.to_string_lossy().into_owned();
    if value.split(',').any(|backend| wgpu::Backends::from_comma_list(backend).is_empty()) {
        let expected = "a comma-separated list of vulkan (vk), metal (mtl), dx12 (d3d12), \
                        gl (gles, opengl), webgpu and noop";
        return Err(EngineError::Environment { name, value, expected });
    }
    Ok(())
}
